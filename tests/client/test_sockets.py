import socket
import threading
from time import monotonic

import pytest

from chervil.address import BrokerURL
from chervil.sockets import RECEIVE_SIZE, Socket, connect
from chervil.tls_files import TLSFiles


@pytest.fixture
def pair():
    """Our socket, and the peer's plain one."""
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    made = Socket(ours)
    yield made, peer
    made.close()
    peer.close()


def soon():
    return monotonic() + 0.05


def later():
    return monotonic() + 10


def test_what_is_sent_arrives_and_is_counted(pair):
    ours, peer = pair
    assert ours.send(b"abc", later()) == b""
    assert ours.send(b"de", None) == b""
    assert peer.recv(10) == b"abcde"


def test_receive_waits_for_the_next_bytes(pair):
    ours, peer = pair
    thread = threading.Thread(target=peer.sendall, args=(b"x",))
    thread.start()
    assert ours.receive(later()) == b"x"
    thread.join(10)


def test_one_read_takes_no_more_than_its_limit(pair):
    ours, peer = pair
    thread = threading.Thread(target=peer.sendall, args=(b"x" * (2 * RECEIVE_SIZE),))
    thread.start()
    sizes = []
    while sum(sizes) < 2 * RECEIVE_SIZE:
        sizes.append(len(ours.receive(later())))
    thread.join(10)
    assert max(sizes) <= RECEIVE_SIZE


def test_a_silent_peer_is_waited_for_until_the_deadline_only(pair):
    ours, _ = pair
    end = soon()
    with pytest.raises(TimeoutError, match="the deadline has passed"):
        ours.receive(end)
    assert monotonic() >= end


def test_bytes_that_are_there_are_read_after_the_deadline_too(pair):
    ours, peer = pair
    peer.sendall(b"x")
    assert ours.receive(monotonic() - 1) == b"x"


def test_a_peer_that_does_not_read_ends_a_send_at_the_deadline(pair):
    ours, _ = pair
    data = b"x" * 10_000_000
    with pytest.raises(TimeoutError):
        ours.send(data, soon())


def test_a_send_into_a_full_socket_ends_at_its_deadline_without_a_byte(pair):
    ours, _ = pair
    with pytest.raises(TimeoutError):
        ours.send(b"x" * 10_000_000, soon())
    with pytest.raises(TimeoutError):
        ours.send(b"y", soon())


def test_what_comes_while_a_send_is_stuck_is_read_and_handed_back(pair):
    """The peer writes more than a socket holds before it reads on."""
    ours, peer = pair
    answer, data = b"a" * 4_000_000, b"d" * 4_000_000
    got = bytearray()

    def answer_first():
        peer.sendall(answer)
        while len(got) < len(data):
            got.extend(peer.recv(1 << 20))

    thread = threading.Thread(target=answer_first)
    thread.start()
    received = bytearray(ours.send(data, later()))
    while len(received) < len(answer):
        received += ours.receive(later())
    thread.join(10)
    assert (bytes(got), bytes(received)) == (data, answer)


def test_the_end_of_the_stream_is_an_error_everywhere(pair):
    ours, peer = pair
    peer.close()
    with pytest.raises(ConnectionResetError, match="the broker closed the connection"):
        ours.receive(later())
    with pytest.raises(ConnectionResetError):
        ours.pending()
    with pytest.raises(BrokenPipeError):
        ours.send(b"x", later())


def test_pending_never_waits(pair):
    ours, peer = pair
    assert ours.pending() == b""
    peer.sendall(b"unasked")
    assert ours.pending() == b"unasked"


def test_a_socket_nobody_closed_is_closed_with_its_owner(pair):
    ours, theirs = socket.socketpair()
    abandoned = Socket(ours)
    del abandoned
    assert theirs.recv(1) == b""
    theirs.close()


def test_tcp_is_connected_without_holding_back_small_frames():
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = connect(
            BrokerURL("chervil", host="127.0.0.1", port=server.getsockname()[1]), TLSFiles(), later()
        )
        assert made._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not made._sock.getblocking()
        made.close()


def test_unix_sockets_are_connected_by_path(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        made = connect(BrokerURL("chervil+unix", path=str(path)), TLSFiles(), later())
        made.send(b"hello", later())
        peer, _ = server.accept()
        assert peer.recv(10) == b"hello"
        peer.close()
        made.close()


def test_nobody_there_is_an_error_at_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        connect(BrokerURL("chervil", host="127.0.0.1", port=port), TLSFiles(), later())
    with pytest.raises(FileNotFoundError):
        connect(BrokerURL("chervil+unix", path=str(tmp_path / "none")), TLSFiles(), later())


@pytest.mark.parametrize(
    "url", [BrokerURL("chervil", host="127.0.0.1", port=1), BrokerURL("chervil+unix", path="/nonexistent")]
)
def test_no_connection_is_tried_after_the_deadline(url):
    with pytest.raises(TimeoutError, match="the deadline has passed"):
        connect(url, TLSFiles(), monotonic() - 1)


class Moody:
    """A stream that has nothing for us at first though its descriptor is ready, as TLS may."""

    def __init__(self, sock, times):
        self.sock = sock
        self.left = times
        self.fileno, self.close = sock.fileno, sock.close

    def recv(self, size):
        self._balk()
        return self.sock.recv(size)

    def send(self, data):
        self._balk()
        return self.sock.send(data)

    def _balk(self):
        if self.left:
            self.left -= 1
            raise BlockingIOError


@pytest.fixture
def moody():
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    stream = Moody(ours, 0)
    made = Socket(stream)
    yield made, stream, peer
    made.close()
    peer.close()


def test_a_read_that_brings_nothing_is_tried_again(moody):
    ours, stream, peer = moody
    peer.sendall(b"x")
    stream.left = 3
    assert ours.receive(later()) == b"x"


def test_a_look_that_brings_nothing_found_nothing(moody):
    ours, stream, peer = moody
    peer.sendall(b"x")
    stream.left = 1
    assert ours.pending() == b""
    assert ours.pending() == b"x"


def test_a_write_that_is_not_possible_yet_is_tried_again(moody):
    ours, stream, peer = moody
    peer.sendall(b"meanwhile")
    stream.left = 4  # the first attempt, then reads and writes
    assert ours.send(b"x", later()) in (b"", b"meanwhile")
    assert peer.recv(1) == b"x"
    assert stream.left == 0
