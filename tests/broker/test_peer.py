"""What the broker does with peers that break the rules, vanish, or do not read."""

import struct

import pytest

from chervil.protocol import Code, State
from chervil.protocol.limits import PREAUTH_OUT
from chervil.protocol.messages import (
    Complete,
    Confirm,
    Credit,
    Deliver,
    Error,
    Hello,
    Ok,
    Publish,
    Subscribe,
)
from chervil_broker import peer as peer_module
from chervil_broker import strangers as strangers_module
from tests.broker.talk import play, task


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x00\x00\x00\x00", Code.BAD_FRAME),
        (b"\xff\xff\xff\xff", Code.BAD_FRAME),
        (b"GET / HTTP/1.1\r\n\r\n", Code.BAD_FRAME),
        (b"\x00\x00\x00\x01\xc1", Code.BAD_FRAME),
        (b"\x00\x00\x00\x02\x91\x63", Code.UNKNOWN_COMMAND),
        (b"\x00\x00\x00\x02\x91\x04", Code.BAD_STATE),
        (b"\x00\x00\x00\x02\x91\x01", Code.BAD_FIELD),
    ],
)
def test_a_stranger_that_breaks_the_rules_is_closed_and_others_go_on(data, code, caplog):
    async def scenario(house):
        guest, stranger = await house.guest(), await house.connect()
        stranger.connection.state = State.GREETING  # it takes what it sent for a HELLO
        stranger.send_raw(data)
        error = await stranger.expect(Error)
        assert (error.request, error.code) == (None, code)
        assert await stranger.ended()
        assert house.broker.counters[f"refused_{code.lower()}"] == 1
        guest.send(Publish(1, [task()]))
        assert (await guest.expect(Confirm)).accepted == 1

    caplog.set_level("WARNING")
    play(scenario)
    assert str(code) in caplog.text


def test_a_guest_that_breaks_the_rules_is_told_the_code():
    async def scenario(house):
        guest = await house.guest()
        guest.send_raw(b"\x00\x00\x00\x02\x91\x63")
        error = await guest.expect(Error)
        assert (error.request, error.code) == (None, Code.UNKNOWN_COMMAND)
        assert await guest.ended()

    play(scenario)


def test_before_hello_a_frame_is_small():
    async def scenario(house):
        stranger = await house.connect()
        stranger.send_raw((5000).to_bytes(4, "big"))
        assert (await stranger.expect(Error)).code == Code.BAD_FRAME
        assert await stranger.ended()

    play(scenario)


def test_hello_has_a_deadline(monkeypatch):
    monkeypatch.setattr(peer_module, "PREAUTH_SECONDS", 0.01)

    async def scenario(house):
        stranger = await house.connect()
        assert (await stranger.expect(Error)).code == Code.SLOW
        assert await stranger.ended()
        assert house.broker.counters["refused_slow"] == 1

    play(scenario)


def test_hello_a_byte_at_a_time_is_understood():
    async def scenario(house):
        talker = await house.connect()
        for byte in talker.connection.send(Hello(1, 1, [], "slow")):
            talker.send_raw(bytes([byte]))
            await talker.writer.drain()
        assert (await talker.next()).version == 1

    play(scenario)


def test_the_completion_of_a_lost_lease_is_stale():
    async def scenario(house):
        first, second = await house.guest("first"), await house.guest("second")
        row = task()
        first.send(Publish(1, [row]), Subscribe(2, ["default"]), Credit(1))
        for kind in (Confirm, Ok, Deliver):
            await first.expect(kind)
        second.send(Complete(1, [[row[0], 1, 1, "json", b"1"]]))
        assert (await second.next()).exceptions == [[0, 2]]

    play(scenario)


def test_unfinished_frames_have_a_limit_together():
    async def scenario(house):
        house.broker.partial_limit = 1 << 20
        guests = [await house.guest() for _ in range(3)]
        for guest in guests:
            guest.send_raw((8 << 20).to_bytes(4, "big") + b"x" * (600 << 10))
        refused = await guests[2].expect(Error)
        assert refused.code == Code.TOO_MANY
        assert await guests[2].ended()
        assert house.broker.partial_bytes < 2 << 20

    play(scenario, max_memory=1 << 20)


def test_too_many_connections_are_refused_with_a_code():
    async def scenario(house):
        guest = await house.guest()
        refused = await house.connect()
        assert (await refused.expect(Error)).code == Code.TOO_MANY
        assert await refused.ended()
        guest.send(Publish(1, [task()]))
        assert (await guest.expect(Confirm)).accepted == 1
        assert house.broker.counters["refused_too_many"] == 1

    play(scenario, max_connections=1)


def test_strangers_have_a_limit_until_they_say_hello_or_leave(monkeypatch):
    monkeypatch.setattr(strangers_module, "PREAUTH_PEERS_MAX", 2)

    async def scenario(house):
        first, second, third = [await house.connect() for _ in range(3)]
        assert (await third.expect(Error)).code == Code.TOO_MANY
        assert await third.ended()
        await first.hello()
        second.vanish()
        await house.until(lambda: len(house.broker.strangers) == 0)
        await house.guest()
        await house.guest()

    play(scenario)


def test_a_stranger_is_told_little():
    async def scenario(house):
        stranger = await house.connect()
        await house.until(lambda: len(house.broker.peers) == 1)
        house.broker.peers[1].refuse(Code.BAD_FIELD, "\N{SNOWMAN}" * 2000)
        data = await stranger.reader.read()
        assert PREAUTH_OUT - 128 < len(data) <= PREAUTH_OUT
        (error,) = stranger.connection.receive(data)
        assert error.code == Code.BAD_FIELD

    play(scenario)


def test_other_users_are_refused_on_the_unix_socket(monkeypatch, caplog):
    monkeypatch.setattr(peer_module, "_same_user", lambda transport: False)

    async def scenario(house):
        assert await (await house.connect()).ended()
        assert house.broker.peers == {}

    caplog.set_level("WARNING")
    play(scenario)
    assert "another user" in caplog.text


@pytest.mark.parametrize(("uid", "same"), [(1000, True), (0, True), (1001, False)])
def test_the_same_user_and_root_may_use_the_socket(uid, same, monkeypatch):
    class Socket:
        def getsockopt(self, level, option, size):
            return struct.pack("3i", 77, uid, uid)

    class Transport:
        def get_extra_info(self, name):
            return Socket()

    monkeypatch.setattr(peer_module.os, "getuid", lambda: 1000)
    assert peer_module._same_user(Transport()) is same
