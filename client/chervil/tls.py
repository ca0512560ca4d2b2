"""TLS at the client's side: whom it trusts, what it shows, and a socket that speaks it.

Loaded only for `chervils://` URLs.
"""

import socket
import ssl
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from chervil.tls_files import TLSFailed, TLSFiles, about_certificate


def context_for(files: TLSFiles) -> ssl.SSLContext:
    """TLS 1.2 or later; the broker's certificate and host name are checked. Raises TLSFailed.

    It is made once for as long as the files are the same: reading the system's CAs takes 20 ms.
    """
    return _context(files, tuple(_changed_at(path) for path in files))


@lru_cache(maxsize=8)
def _context(files: TLSFiles, changed: tuple[int | None, ...]) -> ssl.SSLContext:
    del changed
    if files.key is not None and files.cert is None:
        raise TLSFailed(f"the key {files.key} has no certificate; name that with CHERVIL_TLS_CERT")
    try:
        context = ssl.create_default_context(cafile=files.ca)
    except OSError as error:
        raise TLSFailed(f"the CA file {files.ca} cannot be used: {_reason(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.cert is not None:
        try:
            context.load_cert_chain(files.cert, files.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise TLSFailed(_wrong_pair(files.cert, files.key, error)) from None
    return context


def _wrong_pair(cert: str, key: str | None, error: Exception) -> str:
    """What is wrong with a certificate, or its key, that OpenSSL does not take: it names no file."""
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"the key {key or cert} is not that of the certificate {cert}"
    for what, path, mark in (
        ("certificate", cert, b" CERTIFICATE-----"),
        ("key", key or cert, b" PRIVATE KEY-----"),
    ):
        try:
            held = Path(path).read_bytes()
        except OSError as unreadable:
            return f"the {what} {path} cannot be used: {unreadable.strerror}"
        if mark not in held and key is None and what == "key":
            return f"the certificate {cert} has no key with it; name the file of its key with CHERVIL_TLS_KEY"
        if mark not in held:
            return f"the {what} {path} cannot be used: it is no PEM file of a {what}"
    return f"the certificate {cert} with the key {key or cert} cannot be used: {_reason(error)}"


def _changed_at(path: str | None) -> int | None:
    try:
        return None if path is None else Path(path).stat().st_mtime_ns
    except OSError:
        return None


def _no_password() -> str:
    raise ValueError("the key is encrypted; decrypt it with openssl pkey")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"it is no such PEM file ({error.reason or error})"
    return getattr(error, "strerror", None) or str(error)


class TLSSocket:
    """A socket that does not block and speaks TLS: what `Socket` and `AsyncLine` need of one.

    After `recv` nothing that has come is kept back here: whether there is more, the kernel tells.
    """

    def __init__(self, sock: socket.socket, files: TLSFiles, host: str) -> None:
        """`sock` is connected and does not block. Raises TLSFailed for wrong files."""
        self._files = files
        self._ssl = context_for(files).wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)

    def fileno(self) -> int:
        return self._ssl.fileno()

    def shake_hands(self) -> bool | None:
        """A step of the handshake: None when it is done, else whether it waits to be able to write.

        Raises TLSFailed, and is closed then.
        """
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            return True
        except OSError as error:
            self.close()
            raise handshake_failure(error, self._files) from error
        return None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Sends what it can; raises BlockingIOError where that is nothing, TLSFailed, ConnectionError."""
        try:
            return self._ssl.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except (ssl.SSLEOFError, ConnectionError) as error:
            # In TLS 1.3 a broker that refuses our certificate says so after our part of the handshake, and is
            # gone: its last word is still to be read.
            with suppress(BlockingIOError):
                self.recv(1)
            raise ConnectionResetError("the broker closed the connection") from error
        except ssl.SSLError as error:
            raise failure(error, self._files) from error

    def recv(self, size: int) -> bytes:
        """What has come, b"" at the end; raises BlockingIOError where there is nothing, TLSFailed."""
        try:
            data = self._ssl.recv(size)
            while held := self._ssl.pending():
                data += self._ssl.recv(held)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise failure(error, self._files) from error
        return data

    def close(self) -> None:
        """Without a word: it may be the parent process's connection."""
        self._ssl.close()


#: What OpenSSL calls a failure, and what it means to whoever connects; `{file}` is where a certificate of
#: ours is.
_FAILURES = {
    "WRONG_VERSION_NUMBER": "the broker does not speak TLS there; its URL begins with chervil://",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (
        "the broker asks for a client certificate; name one with CHERVIL_TLS_CERT and CHERVIL_TLS_KEY"
    ),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": (
        "the broker says that this client's certificate{file} has expired; have a new one made"
    ),
    "TLSV1_ALERT_UNKNOWN_CA": (
        "the broker does not know the CA of this client's certificate{file}; it wants one of its "
        "--tls-client-ca"
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": (
        "the broker does not accept this client's certificate{file}; it wants one of its --tls-client-ca"
    ),
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": (
        "the broker says that this client's certificate{file} is not for clients (extendedKeyUsage "
        "clientAuth); have one made that is"
    ),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "the broker asks for a client certificate (name one with CHERVIL_TLS_CERT and CHERVIL_TLS_KEY), "
        "or has no cipher in common"
    ),
}

#: Why OpenSSL does not accept a certificate (X509_V_ERR_...): it is self-signed, alone or at the end of the
#: chain, or its issuer is not here.
_FOREIGN = (18, 19, 20)
#: The same for other reasons, and what to do.
_REFUSALS = {
    9: "check this machine's clock",
    10: "the broker needs a new one, or this machine's clock is wrong",
    # Another host name, another address.
    **dict.fromkeys((62, 64), "connect by a name that it holds, or have it name this one"),
}


def failure(error: OSError, files: TLSFiles) -> TLSFailed:
    """Why TLS came to nothing, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # OpenSSL ends some of its sentences.
        what = f"the broker's certificate is not accepted: {error.verify_message.rstrip('.')}"
        remedy = _REFUSALS.get(error.verify_code)
        if error.verify_code in _FOREIGN:
            remedy = "name the file of the CA that it is of with CHERVIL_TLS_CA"
            if files.ca is not None:
                remedy = f"no CA in {files.ca} signed it"
        return TLSFailed(f"{what}; {remedy}" if remedy else what)
    if isinstance(error, ssl.SSLError):
        # An error that asyncio has made has none.
        reason = getattr(error, "reason", None)
        if reason not in _FAILURES:
            return TLSFailed(f"TLS failed: {reason or error}")
        return TLSFailed(_FAILURES[reason].replace("{file}", f" {files.cert}" if files.cert else ""))
    return TLSFailed(f"TLS failed: {error.strerror or error}")


def handshake_failure(error: OSError, files: TLSFiles) -> TLSFailed:
    """The same for an error in the handshake."""
    if isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
        return TLSFailed(
            f"the broker ended the connection in the TLS handshake; {about_certificate(files)}; "
            "if it speaks no TLS there, its URL begins with chervil://"
        )
    return failure(error, files)
