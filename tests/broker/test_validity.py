from datetime import UTC, datetime, timedelta

import pytest
import trustme

from chervil_broker.validity import WARNED_BEFORE, Validity, validity

BEGIN, END = datetime(2026, 3, 1, 12, 30, tzinfo=UTC), datetime(2027, 3, 1, 12, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
REMEDY = "put a new one in its place, and send the broker SIGHUP"


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.mark.parametrize("year", [2026, 2049, 2050, 2150])
def test_the_dates_of_a_chains_first_certificate_are_read(ca, year):
    end = datetime(year, 5, 6, 7, 8, 9, tzinfo=UTC)
    chain = ca.issue_cert("localhost", not_before=BEGIN, not_after=end).cert_chain_pems
    pem = b"".join([b"# a remark\n", *(each.bytes() for each in chain), ca.cert_pem.bytes()]).decode()
    assert validity(pem) == Validity(BEGIN, end)


def test_a_year_of_the_last_century_is_read(ca):
    begin = datetime(1999, 1, 2, tzinfo=UTC)
    issued = ca.issue_cert("localhost", not_before=begin, not_after=END)
    assert validity(issued.cert_chain_pems[0].bytes().decode()).begin == begin


@pytest.mark.parametrize(
    "pem",
    [
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
    ],
    ids=["no certificate", "an empty one", "no base64"],
)
def test_what_is_no_certificate_is_refused(pem):
    with pytest.raises(ValueError):
        validity(pem)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (
            BEGIN - SECOND,
            "is valid from 2026-03-01 12:30 UTC on, and no client takes it before; is this machine's clock right?",
        ),
        (BEGIN, None),
        (END - WARNED_BEFORE, None),
        (END - WARNED_BEFORE + SECOND, f"expires on 2027-03-01 12:30 UTC; {REMEDY}"),
        (END, f"expired on 2027-03-01 12:30 UTC, and no client takes it; {REMEDY}"),
    ],
)
def test_what_is_wrong_is_said_in_time(now, said):
    assert Validity(BEGIN, END).warning(now) == said
