"""When a certificate is valid, and what the log is to say of that.

Python tells the dates only of a certificate that it has verified, and so never of an expired one.
"""

import re
import ssl
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

#: How long before its end a certificate is warned of: Let's Encrypt's are renewed 30 days before theirs.
WARNED_BEFORE = timedelta(days=14)

_FIRST = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
#: Tags of DER (X.690): the version of a certificate, and a time of two digits for the year.
_VERSION, _UTC_TIME = 0xA0, 0x17


class Validity(NamedTuple):
    """From when to when."""

    begin: datetime
    end: datetime

    def warning(self, now: datetime) -> str | None:
        """What is wrong with a broker's certificate, and what to do; None where nothing is."""
        if now < self.begin:
            return (
                f"is valid from {self.begin:%Y-%m-%d %H:%M} UTC on, and no client takes it before; "
                "is this machine's clock right?"
            )
        remedy = "put a new one in its place, and send the broker SIGHUP"
        if now >= self.end:
            return f"expired on {self.end:%Y-%m-%d %H:%M} UTC, and no client takes it; {remedy}"
        if self.end - now < WARNED_BEFORE:
            return f"expires on {self.end:%Y-%m-%d %H:%M} UTC; {remedy}"
        return None


def validity(pem: str) -> Validity:
    """Of the first certificate in a PEM file. Raises ValueError where there is none of X.509's form."""
    first = _FIRST.search(pem)
    if first is None:
        raise ValueError("there is no certificate")
    der = ssl.PEM_cert_to_DER_cert(first[0])
    try:
        _, at, _ = _value(der, 0)  # Certificate (RFC 5280, section 4.1)
        _, at, _ = _value(der, at)  # its tbsCertificate
        tag, _, after = _value(der, at)
        if tag == _VERSION:
            at = after
        for _ in ("serialNumber", "signature", "issuer"):
            _, _, at = _value(der, at)
        _, at, _ = _value(der, at)
        begin, at = _time(der, at)
        end, _ = _time(der, at)
    except IndexError:
        raise ValueError("the certificate ends too early") from None
    return Validity(begin, end)


def _value(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag of a value, where its content begins, and where it ends."""
    tag, length = der[at], der[at + 1]
    at += 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[at : at + size])
        at += size
    return tag, at, at + length


def _time(der: bytes, at: int) -> tuple[datetime, int]:
    tag, start, end = _value(der, at)
    text = der[start:end].decode("ascii", "replace")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC), end
