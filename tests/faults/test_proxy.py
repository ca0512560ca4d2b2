"""The proxy does to connections what it says."""

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from tests.e2e.stage import until
from tests.faults.proxy import Direction, Proxy

SECONDS = 10.0


class EchoServer:
    """Sends back what it reads, on a TCP port."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.received: list[bytes] = []
        self._open: list[socket.socket] = []
        #: Set when a connection has ended as this side sees it.
        self.ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._echo, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def hang_up(self) -> None:
        """Ends all connections that are open."""
        for sock in self._open:
            sock.shutdown(socket.SHUT_RDWR)

    def _echo(self, sock: socket.socket) -> None:
        self._open.append(sock)
        with sock:
            try:
                while data := sock.recv(65536):
                    self.received.append(data)
                    sock.sendall(data)
            except OSError:
                pass
        self.ended.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()


@pytest.fixture
def server() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture
def proxy(server: EchoServer) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", 0), server.address) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    """A connection through the proxy that has passed bytes both ways."""
    with socket.create_connection(proxy.address, timeout=SECONDS) as client:
        client.sendall(b"hello")
        assert receive(client, 5) == b"hello"
        yield client


def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := sock.recv(count - len(data))):
        data += more
    return data


def answers(proxy: Proxy) -> bool:
    """Whether a new connection is taken, and passes bytes both ways."""
    try:
        with socket.create_connection(proxy.address, timeout=SECONDS) as other:
            other.sendall(b"x")
            return receive(other, 1) == b"x"
    except ConnectionRefusedError:
        return False


def is_silent(sock: socket.socket) -> bool:
    """Whether nothing comes for a moment: neither bytes nor an end."""
    sock.settimeout(0.2)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(SECONDS)
    return False


def test_large_data_passes_whole_both_ways(client):
    data = bytes(range(256)) * 4000
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    assert receive(client, len(data)) == data
    sender.join(SECONDS)


def test_cut_resets_both_sides_at_once(client, proxy, server):
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert server.ended.wait(SECONDS)
    assert proxy.counts["cut"] == 1


def test_what_was_done_is_noted_with_its_time(client, proxy):
    before = time.monotonic_ns()
    proxy.cut_after(3)
    client.sendall(b"12345")
    assert receive(client, 5) != b"12345"
    proxy.stall()
    proxy.cut_stalled()
    proxy.refuse(0.01)
    times = proxy.disturbed_at
    assert len(times) == 5
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.monotonic_ns()


def test_cut_without_a_reset_is_an_end_of_file(client, proxy):
    proxy.cut(reset=False)
    assert client.recv(1) == b""


def test_cut_with_nobody_there_says_so(proxy):
    assert proxy.cut() == proxy.stall() == proxy.cut_after(1) == 0


def test_all_connections_are_cut_together(client, proxy):
    with socket.create_connection(proxy.address, timeout=SECONDS) as other:
        other.sendall(b"x")
        assert receive(other, 1) == b"x"
        assert proxy.cut(all_=True, reset=False) == 2
        assert client.recv(1) == other.recv(1) == b""


def test_cut_after_some_bytes_leaves_a_piece_of_a_frame(client, proxy, server):
    proxy.cut_after(7)
    client.sendall(struct.pack(">I", 100) + b"y" * 100)
    assert server.ended.wait(SECONDS)
    assert b"".join(server.received) == b"hello" + struct.pack(">I", 100) + b"yyy"


def test_stalled_connection_swallows_bytes_and_tells_nobody(client, proxy, server):
    assert proxy.stall() == 1
    client.sendall(b"into the void")
    until(lambda: proxy.counts["swallowed"] == 1, "it was read")
    assert is_silent(client)
    assert not server.ended.is_set()
    assert server.received == [b"hello"]


def test_connection_stalled_one_way_passes_the_other(client, proxy, server):
    proxy.stall(Direction.TO_CLIENT)
    client.sendall(b"world")
    until(lambda: b"".join(server.received) == b"helloworld", "it came")
    assert is_silent(client)


def test_client_that_leaves_a_stalled_connection_is_not_noticed_until_it_is_cut(client, proxy, server):
    proxy.stall()
    client.close()
    assert not server.ended.wait(0.2)
    assert proxy.cut_stalled() == 1
    assert server.ended.wait(SECONDS)


def test_connection_that_its_client_has_reset_is_cut_as_well(client, proxy, server):
    proxy.stall()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    until(lambda: proxy._pairs[0].unheard, "the reset has come")
    assert proxy.cut() == 1
    assert server.ended.wait(SECONDS)


def test_end_of_the_way_that_is_not_stalled_passes(client, proxy, server):
    proxy.stall(Direction.TO_CLIENT)
    client.close()
    assert server.ended.wait(SECONDS)


def test_stalled_connection_that_both_sides_have_given_up_is_over(proxy, server, client):
    proxy.stall()
    client.close()
    server.hang_up()
    until(lambda: proxy.connections == 0, "the proxy has let go of it")


def test_new_connections_are_fine_beside_a_stalled_one(client, proxy):
    proxy.stall()
    with socket.create_connection(proxy.address, timeout=SECONDS) as other:
        other.sendall(b"x")
        assert receive(other, 1) == b"x"
        assert proxy.cut_stalled() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        other.sendall(b"y")
        assert receive(other, 1) == b"y"


def test_delay_holds_what_passes(client, proxy):
    proxy.delay(0.1)
    began = time.monotonic()
    client.sendall(b"slow")
    assert receive(client, 4) == b"slow"
    assert time.monotonic() - began >= 0.2
    proxy.delay(0)


def test_refused_connections_are_taken_again_at_the_same_address_later(client, proxy):
    proxy.refuse(2)
    proxy.refuse(2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(proxy.address, timeout=SECONDS)
    client.sendall(b"still here")
    assert receive(client, 10) == b"still here"
    until(lambda: answers(proxy), "it takes connections again")
    assert proxy.counts["refused"] == 1


def test_port_is_nobody_elses_while_connections_are_refused(proxy):
    proxy.refuse(1)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(proxy.address)
    until(lambda: answers(proxy), "it takes connections again")


def test_client_is_hung_up_on_when_no_server_is_there(tmp_path):
    with Proxy(str(tmp_path / "p.sock"), str(tmp_path / "nobody.sock")) as proxy:
        assert proxy.url == f"chervil+unix://{tmp_path}/p.sock"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(SECONDS)
            client.connect(str(tmp_path / "p.sock"))
            assert client.recv(1) == b""


def test_unix_clients_reach_tcp_servers(tmp_path, server):
    with Proxy(str(tmp_path / "p.sock"), server.address) as proxy, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        client.connect(str(proxy.address))
        client.sendall(b"x")
        assert receive(client, 1) == b"x"
        assert proxy.connections == 1
