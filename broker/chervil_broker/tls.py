"""TLS at the broker's side: its certificate, whom it trusts, whose certificate a client brought."""

import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from chervil_broker.validity import validity

log = logging.getLogger("chervil.broker")


class TLSError(ValueError):
    """A certificate, a key or a CA cannot be used; the message names the file and what is wrong."""


class TLSFiles(NamedTuple):
    """PEM files: the broker's chain and key, and the CA of client certificates where they are asked for."""

    cert: Path
    key: Path
    client_ca: Path | None = None


#: The socket on which this task has TLS done.
_talking: ContextVar[socket.socket | None] = ContextVar("_talking", default=None)
#: Bytes that a client may have sent after its part of a handshake: its HELLO.
_SENT_ALREADY = 65_536


def say_why_on(sock: socket.socket) -> None:
    """Has a handshake of this task that fails say so on `sock`, with TLS's alert.

    The event loops close a connection before the alert leaves, so that a client whose certificate is missing
    or refused would read an end without a word.
    """
    _talking.set(sock)


class _Handshake(ssl.SSLObject):
    """What the event loops do TLS with."""

    outgoing: ssl.MemoryBIO
    sock: socket.socket | None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            self._send_alert()
            raise
        self.sock = None

    def _send_alert(self) -> None:
        if self.sock is None:
            return
        with contextlib.suppress(OSError):
            self.sock.send(self.outgoing.read(), socket.MSG_DONTWAIT)
            # What is left unread has the connection reset when it is closed, which a client sees instead.
            self.sock.recv(_SENT_ALREADY, socket.MSG_DONTWAIT)


class _Context(ssl.SSLContext):
    sslobject_class = _Handshake

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **named: Any
    ) -> _Handshake:
        made = super().wrap_bio(incoming, outgoing, *args, **named)
        assert isinstance(made, _Handshake)
        made.outgoing, made.sock = outgoing, _talking.get()
        return made


def server_context(files: TLSFiles) -> ssl.SSLContext:
    """TLS 1.2 or later; with a client CA, whoever connects must have a certificate of it. Raises TLSError."""
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Sessions of TLS are not resumed: a client that comes back shows its certificate again.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise TLSError(_wrong_pair(files, error)) from None
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(files.client_ca)
        except OSError as error:
            raise TLSError(f"--tls-client-ca {files.client_ca}: {_reason(error)}") from None
    return context


class TLS:
    """The broker's TLS as it is now. The log is told of a certificate that is, or will soon be, of no use."""

    def __init__(self, files: TLSFiles) -> None:
        """Raises TLSError."""
        self.files = files
        self.context = server_context(files)
        _warn_of(files.cert)

    def reload(self) -> None:
        """Reads the files again, for connections to come. Raises TLSError: what was before stays."""
        self.context = server_context(self.files)
        _warn_of(self.files.cert)


def _warn_of(cert: Path) -> None:
    """OpenSSL has read it, so that only its dates may be wrong."""
    with contextlib.suppress(OSError, ValueError):
        if wrong := validity(cert.read_text(errors="replace")).warning(datetime.now(UTC)):
            log.warning("--tls-cert %s %s", cert, wrong)


def _no_password() -> str:
    raise ValueError(
        "the key is encrypted; decrypt it (openssl pkey), and keep the file readable by the broker alone"
    )


def _wrong_pair(files: TLSFiles, error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"--tls-key {files.key} does not belong to --tls-cert {files.cert}"
    for flag, path in (("--tls-cert", files.cert), ("--tls-key", files.key)):
        try:
            path.read_bytes()
        except OSError as unreadable:
            return f"{flag} {path}: {unreadable.strerror}"
    return f"--tls-cert {files.cert} and --tls-key {files.key}: {_reason(error)}"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no PEM file of the kind that is wanted ({error.reason or error})"
    return getattr(error, "strerror", None) or str(error)


def certificate_names(certificate: dict[str, Any]) -> Iterator[str]:
    """Who a verified certificate says it is: the names of its SAN, of which one may be a user's."""
    for kind, name in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "URI", "email"):
            yield name


#: What OpenSSL calls a failure, and what it means to an operator.
_FAILURES = {
    "WRONG_VERSION_NUMBER": "the client does not speak TLS; its URL must begin with chervils://",
    "HTTP_REQUEST": "the client speaks HTTP",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has no certificate, and --tls-client-ca asks for one",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not trust this broker's certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not know the CA of this broker's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client refuses this broker's certificate; is it for that host?",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client says that this broker's certificate has expired",
    "UNSUPPORTED_PROTOCOL": "the client speaks no TLS version from 1.2 on",
}
_HUNG_UP = "the client ended the connection before TLS was done"


def why_it_failed(error: BaseException) -> str:
    """Why a handshake came to nothing, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError | EOFError):
        return _HUNG_UP
    if isinstance(error, ssl.SSLError):
        return _FAILURES.get(error.reason or "", f"{error.reason or error}")
    return getattr(error, "strerror", None) or str(error) or "the client did not go on"
