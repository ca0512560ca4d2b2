"""TLS at the client's side: whom it trusts, what it shows, and a socket that speaks it.

Loaded only for `chervils://` URLs.
"""

import socket
import ssl
from functools import lru_cache
from pathlib import Path

from chervil.tls_files import TLSFailed, TLSFiles


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
            names = files.cert if files.key is None else f"{files.cert} with key {files.key}"
            raise TLSFailed(f"the certificate {names} cannot be used: {_reason(error)}") from None
    return context


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
            raise handshake_failure(error) from error
        return None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Sends what it can; raises BlockingIOError where that is nothing, TLSFailed."""
        try:
            return self._ssl.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise failure(error) from error

    def recv(self, size: int) -> bytes:
        """What has come, b"" at the end; raises BlockingIOError where there is nothing, TLSFailed."""
        try:
            data = self._ssl.recv(size)
            while held := self._ssl.pending():
                data += self._ssl.recv(held)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise failure(error) from error
        return data

    def close(self) -> None:
        """Without a word: it may be the parent process's connection."""
        self._ssl.close()


#: What OpenSSL calls a failure, and what it means to whoever connects.
_FAILURES = {
    "WRONG_VERSION_NUMBER": "the broker does not speak TLS there; its URL begins with chervil://",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (
        "the broker asks for a client certificate; name one with CHERVIL_TLS_CERT and CHERVIL_TLS_KEY"
    ),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": (
        "the broker says that this client's certificate has expired; have a new one made"
    ),
    "TLSV1_ALERT_UNKNOWN_CA": (
        "the broker does not know the CA of this client's certificate; it wants one of its --tls-client-ca"
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": (
        "the broker does not accept this client's certificate; it wants one of its --tls-client-ca"
    ),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "the broker asks for a client certificate (name one with CHERVIL_TLS_CERT and CHERVIL_TLS_KEY), "
        "or has no cipher in common"
    ),
}

#: Why OpenSSL does not accept a certificate (X509_V_ERR_...), and what to do.
_REFUSALS = {
    **dict.fromkeys(
        # Self-signed, alone or at the end of the chain; an issuer that is not here.
        (18, 19, 20),
        "name the file of the CA that it is of with CHERVIL_TLS_CA",
    ),
    9: "check this machine's clock",
    10: "the broker needs a new one, or this machine's clock is wrong",
    # Another host name, another address.
    **dict.fromkeys((62, 64), "connect by a name that it holds, or have it name this one"),
}


def failure(error: OSError) -> TLSFailed:
    """Why TLS came to nothing, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # OpenSSL ends some of its sentences.
        what = f"the broker's certificate is not accepted: {error.verify_message.rstrip('.')}"
        remedy = _REFUSALS.get(error.verify_code)
        return TLSFailed(f"{what}; {remedy}" if remedy else what)
    if isinstance(error, ssl.SSLError):
        # An error that asyncio has made has none.
        reason = getattr(error, "reason", None)
        return TLSFailed(_FAILURES.get(reason or "", f"TLS failed: {reason or error}"))
    return TLSFailed(f"TLS failed: {error.strerror or error}")


def handshake_failure(error: OSError) -> TLSFailed:
    """The same for an error in the handshake."""
    if isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
        return TLSFailed(
            "the broker ended the connection in the TLS handshake; if it speaks no TLS there, its URL begins "
            "with chervil://"
        )
    return failure(error)
