"""TLS before a broker that speaks none: certificates of an authority of the test's own, and a relay."""

import contextlib
import datetime as dt
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import trustme

from chervil.address import BrokerURL
from chervil.tls_files import TLSFiles

HOST = "localhost"


class Authority:
    """A CA, and the files that a client of it needs."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self._folder = folder
        self.ca.cert_pem.write_to_path(folder / "ca.pem")
        issued = self.ca.issue_cert("shop@example.org")
        issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        issued.private_key_pem.write_to_path(folder / "key.pem")

    @property
    def files(self) -> TLSFiles:
        """The CA alone."""
        return TLSFiles(ca=str(self._folder / "ca.pem"))

    @property
    def with_certificate(self) -> TLSFiles:
        return TLSFiles(*(str(self._folder / name) for name in ("ca.pem", "cert.pem", "key.pem")))

    def server_context(
        self, host: str = HOST, *, expired: bool = False, asks: bool = False
    ) -> ssl.SSLContext:
        """A broker's; `asks`: for a client certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        self.ca.issue_cert(host, not_after=yesterday if expired else None).configure_cert(context)
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            self.ca.configure_trust(context)
        return context


class Relay:
    """Speaks TLS with clients, and passes on to a broker what they say."""

    def __init__(self, broker: BrokerURL, context: ssl.SSLContext) -> None:
        self._broker = broker
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = BrokerURL("chervils", host=HOST, port=port)
        self.plain_url = BrokerURL("chervil", host=HOST, port=port)
        #: Whether it ends connections after the handshake, without an alert that says why.
        self.hangs_up = False
        #: Whether a client said the end of TLS (close_notify), for each connection that is over.
        self.said_end: list[bool] = []
        self.changed = threading.Condition()
        self._socks: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        self._socks.add(sock)
        client = self._context.wrap_socket(
            sock, server_side=True, suppress_ragged_eofs=False, do_handshake_on_connect=False
        )
        try:
            client.do_handshake()
        except OSError:
            _end_in_order(client)
            return
        if self.hangs_up:
            client.close()
            return
        self._socks.add(client)
        said_end = False
        with client, self._dial() as broker, contextlib.suppress(OSError):
            said_end = _pass(client, broker)
        with self.changed:
            self.said_end.append(said_end)
            self.changed.notify_all()

    def _dial(self) -> socket.socket:
        if self._broker.path is not None:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self._broker.path)
            return sock
        return socket.create_connection((self._broker.host, self._broker.port))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(10)
        for sock in list(self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


def _end_in_order(client: ssl.SSLSocket) -> None:
    """Reads what is left before it closes: a reset would overtake the alert that says why."""
    with client, socket.socket(fileno=os.dup(client.fileno())) as bare, contextlib.suppress(OSError):
        bare.shutdown(socket.SHUT_WR)
        bare.settimeout(5)
        while bare.recv(1 << 16):
            pass


def _pass(client: ssl.SSLSocket, broker: socket.socket) -> bool:
    """Passes on both ways until one of them ends; whether the client said the end of TLS."""
    poll = select.poll()
    poll.register(client, select.POLLIN)
    poll.register(broker, select.POLLIN)
    while True:
        ready = [] if client.pending() else [descriptor for descriptor, _ in poll.poll()]
        if client.pending() or client.fileno() in ready:
            data = _come(client)
            if data == b"":
                return True
            broker.sendall(data or b"")
        if broker.fileno() in ready:
            data = broker.recv(1 << 16)
            if not data:
                return False
            client.sendall(data)


def _come(client: ssl.SSLSocket) -> bytes | None:
    """What a client says, b"" for the end of TLS, None for what was no data. Raises OSError for a bare end."""
    client.setblocking(False)
    try:
        return client.recv(1 << 16)
    except ssl.SSLWantReadError:
        return None
    finally:
        client.setblocking(True)
