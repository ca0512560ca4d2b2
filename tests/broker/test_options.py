from pathlib import Path

import pytest

from chervil_broker.options import BrokerOptions
from chervil_broker.tls import TLSFiles


def test_memory_defaults_to_half_of_what_there_is():
    assert BrokerOptions().max_memory > 1 << 27


def test_a_body_limit_over_the_protocols_is_refused():
    with pytest.raises(ValueError, match=r"--body-limit is 1 to 16777216 bytes, not 99999999"):
        BrokerOptions(body_limit=99_999_999)


def test_a_memory_limit_that_holds_nothing_is_refused():
    with pytest.raises(ValueError, match="--max-memory is at least 1MB"):
        BrokerOptions(max_memory=1000)


def test_fewer_than_no_remembered_ids_are_refused():
    assert BrokerOptions(dedup_ids=0).dedup_ids == 0
    with pytest.raises(ValueError, match="--dedup-ids is a number from 0, not -1"):
        BrokerOptions(dedup_ids=-1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tls_cert": "c"}, "--tls-cert and --tls-key go together"),
        ({"tls_key": "k"}, "--tls-cert and --tls-key go together"),
        ({"tls_client_ca": "ca"}, "--tls-client-ca is for TLS"),
        ({"tls_cert": "c", "tls_key": "k", "no_tls": True}, "exclude each other"),
        ({"max_connections": 0}, "--max-connections is a number from 1, not 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        BrokerOptions(**given)


def test_the_files_of_tls_are_paths():
    assert BrokerOptions().tls_files is None
    assert BrokerOptions(tls_cert="c", tls_key="k").tls_files == TLSFiles(Path("c"), Path("k"))
    files = BrokerOptions(tls_cert="c", tls_key="k", tls_client_ca="ca").tls_files
    assert files == TLSFiles(Path("c"), Path("k"), Path("ca"))
