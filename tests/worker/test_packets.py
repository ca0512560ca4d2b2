import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil_worker import packets
from chervil_worker.lifeline import open_descriptors
from chervil_worker.packets import DONT_WAIT, INLINE_MAX, Packet
from tests.worker.conftest import no_descriptor_left
from tests.worker.rig import receive_answer

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Pair]:
    pair = packets.pair()
    yield pair
    for end in pair:
        end.close()


@given(number=st.integers(0, 2**64 - 1), payload=st.binary(max_size=2000))
def test_packets_come_out_as_they_went_in(number: int, payload: bytes):
    ours, theirs = packets.pair()
    with ours, theirs:
        packets.send(ours, number, payload)
        assert packets.receive(theirs) == Packet(number, payload)


@pytest.mark.parametrize("size", [INLINE_MAX - 1, INLINE_MAX, INLINE_MAX + 1, 5_000_000])
def test_large_payloads_pass_both_ways_and_leave_no_descriptor(ends: Pair, size: int):
    before = open_descriptors()
    payload = os.urandom(size)
    for sender, receiver in (ends, ends[::-1]):
        packets.send(sender, 1, payload)
        assert packets.receive(receiver) == Packet(1, payload)
    assert open_descriptors() == before


def test_large_payloads_pass_where_there_is_no_memfd(ends: Pair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "memfd_create")
    payload = os.urandom(100_000)
    packets.send(ends[0], 1, payload)
    assert packets.receive(ends[1]) == Packet(1, payload)


def test_plain_packets_are_read_as_they_come_and_say_what_they_lack(ends: Pair):
    ours, theirs = ends
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        packets.receive_plain(ours)
    packets.send(theirs, 7, b"payload")
    assert packets.receive_plain(ours) == (7, b"payload")
    theirs.send(b"1234567")
    with pytest.raises(ValueError, match="without a number"):
        packets.receive_plain(ours)
    theirs.send(b"")
    with pytest.raises(EOFError):
        packets.receive_plain(ours)
    packets.send(ours, 8, b"unread")
    theirs.close()
    for _ in range(2):
        with pytest.raises(EOFError):
            packets.receive_plain(ours)


@pytest.mark.parametrize("size", [3, INLINE_MAX + 1])
def test_descriptors_pass_beside_the_payload(ends: Pair, size: int):
    read, write = os.pipe()
    packets.send(ends[0], 1, b"x" * size, [write])
    os.close(write)
    packet = packets.receive(ends[1])
    assert packet is not None
    (passed,) = packet.descriptors
    assert not os.get_inheritable(passed)
    os.write(passed, b"hello")
    assert os.read(read, 9) == b"hello"
    os.close(passed)
    os.close(read)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_payload_in_parts_needs_no_descriptor(ends: Pair, parts: int, more: int):
    payload = os.urandom(parts * INLINE_MAX + more)
    with no_descriptor_left(os.getpid()):
        packets.send_in_parts(ends[0], 7, payload)
        packet = receive_answer(ends[1])
    assert packet == Packet(7, payload)
    assert packets.take_back(ends[1]) == []


def test_receiver_without_a_descriptor_gets_a_large_packets_number_and_no_payload(ends: Pair):
    packets.send(ends[0], 7, bytes(INLINE_MAX + 1))
    packets.send(ends[0], 8, b"")
    with no_descriptor_left(os.getpid()):
        assert packets.receive(ends[1]) == Packet(7, None)
        assert packets.receive(ends[1]) == Packet(8, b"")


def test_receiver_without_a_descriptor_gets_a_small_packet_without_what_came_beside_it(ends: Pair):
    packets.send(ends[0], 7, b"x", [ends[0].fileno()])
    with no_descriptor_left(os.getpid()):
        assert packets.receive(ends[1]) == Packet(7, b"x")


def test_large_packet_that_no_file_can_be_made_for_is_not_sent(ends: Pair):
    with no_descriptor_left(os.getpid()), pytest.raises(OSError, match="Too many open files"):
        packets.send(ends[0], 7, bytes(INLINE_MAX + 1))
    assert packets.take_back(ends[1]) == []


def test_end_of_the_peer_is_none(ends: Pair):
    ends[0].close()
    assert packets.receive(ends[1]) is None


def test_end_of_a_peer_with_unread_packets_is_none(ends: Pair):
    packets.send(ends[1], 1, b"never read")
    ends[0].close()
    assert packets.receive(ends[1]) is None


def test_nothing_there_is_said_so(ends: Pair):
    with pytest.raises(BlockingIOError):
        packets.receive(ends[0], DONT_WAIT)


def test_full_socket_refuses_whole_packets(ends: Pair):
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 1000:
            packets.send(ends[0], sent, bytes(10_000), (), DONT_WAIT)
            sent += 1
    assert 2 < sent < 1000
    for number in range(sent):
        assert packets.receive(ends[1], DONT_WAIT) == Packet(number, bytes(10_000))
    with pytest.raises(BlockingIOError):
        packets.receive(ends[1], DONT_WAIT)


def test_take_back_returns_what_nobody_has_read_in_order(ends: Pair):
    before = open_descriptors()
    for number in range(1, 6):
        packets.send(ends[0], number, b"x" * (INLINE_MAX + 1 if number == 4 else 10))
    assert packets.receive(ends[1]) == Packet(1, b"x" * 10)
    assert packets.take_back(ends[1]) == [2, 3, 4, 5]
    assert packets.take_back(ends[1]) == []
    assert open_descriptors() == before


def test_take_back_from_a_dead_end_is_empty(ends: Pair):
    ends[0].close()
    assert packets.take_back(ends[1]) == []


def test_take_back_survives_the_reset_that_a_dead_peer_leaves(ends: Pair):
    packets.send(ends[1], 1, b"never read")
    ends[0].close()
    assert packets.take_back(ends[1]) == []
