import asyncio
import socket
import struct
from asyncio import run

import pytest

from chervil.address import BrokerURL
from chervil.aio import line as line_module
from chervil.aio.line import UNSENT_MAX, AsyncLine, connect
from chervil.conversation import LineBroken, ask
from chervil.exchange import WELCOME, Mailbox
from chervil.protocol import Stage
from chervil.protocol import messages as m
from chervil.tls_files import TLSFiles
from tests.client.fakes import FakeBroker

SOON = 0.05
LONG = 10.0


def soon():
    return asyncio.get_running_loop().time() + SOON


def later():
    return asyncio.get_running_loop().time() + LONG


async def greeted(broker):
    line = await connect(broker.url, TLSFiles(), later())
    await line.send(line.exchange.hello("me"), later())
    while line.exchange.welcome is None:
        await line.news(WELCOME, later())
    return line


async def between_sockets():
    """A line that was not greeted, and the peer's plain socket."""
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    return AsyncLine(ours, BrokerURL("chervil+unix", path="/b.sock")), peer


def test_replies_come_to_those_who_wait_for_them_in_any_order(broker):
    held = []

    def backwards(peer, message):
        held.append(message)
        if len(held) == 3:
            for one in reversed(held):
                peer.send(m.Report(one.request, {"number": one.request}))
        return True

    broker.scripts[m.Stats] = backwards

    async def main():
        line = await greeted(broker)
        requests = [line.exchange.stats() for _ in range(3)]
        reports = await asyncio.gather(*[ask(line, request, later()) for request in requests])
        assert [report.report["number"] for report in reports] == [request for request, _ in requests]
        line.close()

    run(main())


def test_frames_of_one_turn_leave_in_one_write():
    async def main():
        line, peer = await between_sockets()
        await line.send(b"abc", None)
        line.post(b"de")
        with pytest.raises(BlockingIOError):
            peer.recv(10, socket.MSG_DONTWAIT)
        await asyncio.sleep(0)
        assert peer.recv(10) == b"abcde"
        line.close()
        peer.close()

    run(main())


def test_who_is_cancelled_takes_nothing_from_the_others(broker):
    async def main():
        line = await greeted(broker)
        broker.scripts[m.Stats] = lambda peer, message: True
        lost = asyncio.create_task(ask(line, line.exchange.stats(), later()))
        await broker.happens(lambda: broker.counts["Stats"] == 1)
        broker.scripts.clear()
        lost.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lost
        assert (await ask(line, line.exchange.stats(), later())).report == {"version": "0"}
        assert line._waiting == {}
        line.close()

    run(main())


def test_a_deadline_ends_the_wait_and_leaves_the_line(broker):
    async def main():
        line = await greeted(broker)
        broker.scripts[m.Stats] = lambda peer, message: True
        with pytest.raises(TimeoutError, match="the deadline has passed"):
            await ask(line, line.exchange.stats(), soon())
        assert line.silence >= SOON
        broker.scripts.clear()
        await ask(line, line.exchange.purge([]), later())
        assert line.silence == 0.0
        assert line.usable
        line.close()

    run(main())


def test_a_result_wakes_whoever_watches_it(broker):
    broker.rows["a"] = []

    async def main():
        line = await greeted(broker)
        boxes = [Mailbox(), Mailbox()]
        for box in boxes:
            await ask(line, line.exchange.watch(box, ["a"]), later())
        waiting = [asyncio.create_task(line.news(box, later())) for box in boxes]
        await asyncio.sleep(0)
        broker.finish("a", Stage.SUCCESS)
        await asyncio.gather(*waiting)
        assert [len(box.take()) for box in boxes] == [1, 1]
        line.close()

    run(main())


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("cut", "the broker closed the connection"),
        ("garbage", "the broker broke the protocol: BAD_FRAME"),
        ("half a frame", "the broker closed the connection"),
    ],
)
def test_a_line_that_breaks_tells_all_who_wait_and_all_who_come(broker, how, reason):
    def script(peer, message):
        if how == "garbage":
            peer.sock.sendall(b"\0\0\0\1\xc1")
        elif how == "half a frame":
            peer.sock.sendall(b"\0\0\0\x09\x92")
            peer.cut()
        else:
            peer.cut()
        return True

    async def main():
        line = await greeted(broker)
        broker.scripts[m.Stats] = script
        lost = [ask(line, line.exchange.stats(), later()) for _ in range(3)]
        for error in await asyncio.gather(*lost, return_exceptions=True):
            assert isinstance(error, LineBroken)
            assert reason in str(error)
        for late in (line.news("x", None), line.send(b"x", None)):
            with pytest.raises(LineBroken, match=reason):
                await late
        assert not line.usable
        line.post(b"x")
        line.close()

    run(main())


def test_a_reset_while_reading_or_writing_breaks_the_line():
    async def main():
        for touch in (lambda line: None, lambda line: line.post(b"x")):
            line, peer = await between_sockets()
            peer.close()
            touch(line)
            with pytest.raises(LineBroken):
                await line.news("x", later())

    run(main())


def test_what_came_just_before_the_line_broke_is_not_lost(broker):
    def last_words(peer, message):
        peer.send(m.Report(message.request, {"last": 1}))
        peer.cut()
        return True

    async def main():
        line = await greeted(broker)
        broker.scripts[m.Stats] = last_words
        asking = asyncio.create_task(ask(line, line.exchange.stats(), later()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # The loop does not come to read until both are there.
        broker.wait_for(lambda: not broker.peers)
        assert (await asking).report == {"last": 1}

    run(main())


def test_a_goodbye_wakes_those_who_wait(broker):
    def goodbye(peer, message):
        peer.send(m.Goodbye("SHUTDOWN"))
        return True

    async def main():
        line = await greeted(broker)
        broker.scripts[m.Stats] = goodbye
        with pytest.raises(LineBroken, match="SHUTDOWN") as caught:
            await ask(line, line.exchange.stats(), later())
        assert caught.value.code == "SHUTDOWN"
        line.close()

    run(main())


def test_who_waits_anew_is_not_forgotten_when_others_that_were_told_leave():
    """Several wait for the same window; the first to wake finds it closed again."""

    async def main():
        line, peer = await between_sockets()
        woken = []

        async def wait(name, times):
            for _ in range(times):
                await line.news("window", later())
                woken.append(name)

        tasks = [asyncio.create_task(wait("a", 2)), asyncio.create_task(wait("b", 1))]
        for _ in range(2):
            await asyncio.sleep(0)
            line._tell("window")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert woken == ["a", "b", "a"]
        line.close()
        peer.close()

    run(main())


def test_a_reset_is_the_end_of_the_line():
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = BrokerURL("chervil", host="127.0.0.1", port=server.getsockname()[1])
            for do in (lambda line: None, lambda line: line._read()):
                line = await connect(url, TLSFiles(), later())
                peer, _ = server.accept()
                do(line)  # nothing is there to read: nothing happens
                assert line.usable is False  # not greeted
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()
                with pytest.raises(LineBroken, match="reset"):
                    await line.news("x", later())

    run(main())


def test_senders_wait_while_the_peer_does_not_read():
    async def main():
        line, peer = await between_sockets()
        await line.send(b"x" * (2 * UNSENT_MAX), later())
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await line.send(b"y", soon())
        blocked = asyncio.create_task(line.send(b"y", later()))
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        got = bytearray()
        while not got.endswith(b"y"):
            got += await loop.sock_recv(peer, 1 << 20)
        await blocked
        assert len(got) == 2 * UNSENT_MAX + 1
        line.close()
        peer.close()

    run(main())


def test_close_says_goodbye_and_tells_those_who_wait(broker):
    async def main():
        line = await greeted(broker)
        waiting = asyncio.create_task(line.news("x", None))
        await asyncio.sleep(0)
        line.close()
        with pytest.raises(LineBroken, match="closed here"):
            await waiting
        line.close()

    run(main())
    broker.wait_for(lambda: broker.counts["Goodbye"] == 1 and not broker.peers)


def test_a_forgotten_line_lets_go_of_its_socket_only(broker):
    async def main():
        line = await greeted(broker)
        asyncio.get_running_loop().remove_reader(line._fd)
        line.forget()
        assert not line.usable
        with pytest.raises(LineBroken, match="another loop"):
            await line.news("x", None)

    run(main())
    broker.wait_for(lambda: not broker.peers)
    assert broker.counts["Goodbye"] == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tcp_is_connected_by_number_and_by_name(host):
    broker = FakeBroker()

    async def main():
        line = await connect(BrokerURL("chervil", host=host, port=broker.url.port), TLSFiles(), later())
        assert line._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        line.close()

    run(main())
    broker.close()


def test_nobody_there_is_an_error_and_so_is_an_address_that_is_none(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    async def main():
        with pytest.raises(ConnectionRefusedError):
            await connect(BrokerURL("chervil", host="127.0.0.1", port=port), TLSFiles(), later())
        with pytest.raises(FileNotFoundError):
            await connect(BrokerURL("chervil+unix", path=str(tmp_path / "none")), TLSFiles(), later())

        async def none(host, port):
            return []

        monkeypatch.setattr(line_module, "_addresses", none)
        with pytest.raises(OSError, match="h has no address"):
            await connect(BrokerURL("chervil", host="h", port=1), TLSFiles(), later())

    run(main())


def test_a_unix_socket_whose_queue_is_full_is_waited_for_until_the_deadline(tmp_path):
    url = BrokerURL("chervil+unix", path=str(tmp_path / "s"))

    async def main():
        lines = []

        async def fill():
            while True:
                lines.append(await connect(url, TLSFiles(), soon()))

        with pytest.raises(TimeoutError):
            await fill()
        connecting = asyncio.create_task(connect(url, TLSFiles(), later()))
        await asyncio.sleep(0)
        assert not connecting.done()
        accepted = [listener.accept()[0] for _ in lines]
        for line in [*lines, await connecting]:
            line.fail(LineBroken("done"))
        for sock in accepted:
            sock.close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(url.path)
        listener.listen(0)
        run(main())


# TLS


def test_much_goes_both_ways_over_tls(relayed, authority, broker):
    url = relayed(authority.server_context()).url

    async def main():
        line = await connect(url, authority.files, later())
        await line.send(line.exchange.hello("me"), later())
        while line.exchange.welcome is None:
            await line.news(WELCOME, later())
        line.exchange._connection.accept_frames_up_to(1 << 25)
        rows = [[str(n), "t", "default", 0, None, None, "json", b"x" * 200_000] for n in range(20)]
        requests = [line.exchange.publish([row]) for row in rows]
        await asyncio.gather(*[ask(line, request, later()) for request in requests])
        line.close()

    run(main())
    assert len(broker.rows) == 20
    assert len(broker.hellos) == 1


def test_a_connecting_that_is_cancelled_leaves_nothing_open(authority):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = BrokerURL("chervils", host="127.0.0.1", port=silent.getsockname()[1])
            connecting = asyncio.create_task(connect(url, authority.files, later()))
            peer, _ = await asyncio.to_thread(silent.accept)
            assert await asyncio.to_thread(peer.recv, 1) == b"\x16"
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            peer.settimeout(LONG)
            while await asyncio.to_thread(peer.recv, 1 << 16):
                pass
            peer.close()

    run(main())


def test_a_failure_of_tls_breaks_the_line_in_its_own_words(relayed, authority):
    context = authority.server_context(asks=True)
    url = relayed(context).url

    async def main():
        line = await connect(url, authority.files, later())
        with pytest.raises(LineBroken, match="client certificate") as caught:
            await line.news(WELCOME, later())
        assert caught.value.explained

    run(main())
