"""What is known of TLS at the client's side without loading `ssl`: its files, and how it fails. A leaf."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

#: Setting `broker_use_ssl`: its keys are Celery's; and the environment's names for the same.
KEYS = {"ca_certs": "CHERVIL_TLS_CA", "certfile": "CHERVIL_TLS_CERT", "keyfile": "CHERVIL_TLS_KEY"}
#: What Celery calls the check of the broker's certificate, which is always made; 2 is `ssl.CERT_REQUIRED`.
_CHECK = "cert_reqs"
_CHECKED = (2, "required", "CERT_REQUIRED")

#: How a broker that speaks TLS answers one that does not: an alert (RFC 8446, section 5.1), version 3.x.
_ALERT = b"\x15\x03"


class TLSFiles(NamedTuple):
    """PEM files; None: the system's CAs, and no certificate of our own."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class TLSFailed(ConnectionError):
    """TLS with the broker came to nothing; the message says why and what to do."""


def read_setting(value: object) -> TLSFiles | None:
    """What the setting `broker_use_ssl` says; None: nothing. Raises TypeError and ValueError."""
    if value is None or value is False:
        return None
    if value is True:
        return TLSFiles()
    if isinstance(value, TLSFiles):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"wants a dict such as {{'ca_certs': FILE}}, or True, not {type(value).__name__}")
    if _CHECK in value and value[_CHECK] not in _CHECKED:
        raise ValueError(
            f"cannot have {_CHECK} = {value[_CHECK]!r}: the broker's certificate and its host name are "
            f"always checked; leave {_CHECK} out, and name the CA's file in ca_certs"
        )
    if unknown := [key for key in value if key not in KEYS and key != _CHECK]:
        raise ValueError(f"has no {', '.join(map(repr, unknown))}; what it may have is {', '.join(KEYS)}")
    for key in KEYS:
        if not isinstance(value.get(key), str | os.PathLike | None):
            raise TypeError(f"wants the name of a file as {key}, not {type(value[key]).__name__}")
    files = TLSFiles(*(_name(value.get(key)) for key in KEYS))
    if files.key and not files.cert:
        raise ValueError("names a keyfile without a certfile")
    return files


def _name(path: Any) -> str | None:
    return os.fspath(path) if path else None


def files_from(setting: TLSFiles | None) -> TLSFiles:
    """The files to use: the environment goes before the setting.

    A certificate brings its key: where the environment names one, the setting's key is of another.
    """
    ca, cert, key = (os.environ.get(name) or None for name in KEYS.values())
    given = setting or TLSFiles()
    if cert is None:
        cert, key = given.cert, key or given.key
    return TLSFiles(ca or given.ca, cert, key)


def about_certificate(files: TLSFiles) -> str:
    """What to look at where a broker ends a connection and its TLS has not said why."""
    if files.cert is None:
        return "if it asks for a client certificate, name one with CHERVIL_TLS_CERT and CHERVIL_TLS_KEY"
    return (
        f"if it asks for a client certificate, see that {files.cert} is of its --tls-client-ca and has not "
        "expired"
    )


def is_alert(data: bytes) -> bool:
    """Whether these first bytes of a broker are TLS; the protocol's own begin with a length below 2**24."""
    return data.startswith(_ALERT)


#: What to say of a broker whose first bytes are.
SPEAKS_TLS = "the broker speaks TLS there; its URL begins with chervils://"
