"""Doors with real sockets: TLS before peers hear of anybody, and nobody for ever."""

import asyncio
import contextlib
import errno
import gc
import socket
import ssl
import threading
import weakref
from dataclasses import replace

import pytest
import trustme

from chervil.protocol import Code
from chervil.protocol.messages import (
    Complete,
    Completed,
    Confirm,
    Credit,
    Deliver,
    Error,
    Goodbye,
    Hello,
    Publish,
    Purge,
    Query,
    Subscribe,
)
from chervil_broker import door as door_module
from chervil_broker import peer as peer_module
from chervil_broker import strangers as strangers_module
from chervil_broker import users as users_module
from chervil_broker.access import Access
from chervil_broker.broker import Broker
from chervil_broker.door import Door
from chervil_broker.options import BrokerOptions
from chervil_broker.store import MemoryStore
from chervil_broker.tls import TLS, TLSFiles
from chervil_broker.users import UsersFile, UsersUnreadable, changing
from tests.broker.talk import DEADLINE, Talker, task

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def files(ca, tmp_path):
    issued = ca.issue_cert(HOST)
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    return TLSFiles(tmp_path / "cert.pem", tmp_path / "key.pem")


class Place:
    """A broker behind a door."""

    def __init__(self, files, users):
        self.tls = None if files is None else TLS(files)
        self.file = UsersFile(users)
        access = Access(self.file, local_token_hash=None)
        self.broker = Broker(
            BrokerOptions(memory=True, max_memory=64 << 20, body_limit=8 << 20), MemoryStore(), access
        )
        self.sock = socket.create_server((HOST, 0))
        self.port = self.sock.getsockname()[1]
        self.door = Door(
            self.sock,
            lambda: self.broker.new_peer(needs_token=True),
            lambda: None if self.tls is None else self.tls.context,
        )
        self.talkers = []

    async def talker(self, context, source=HOST):
        reader, writer = await asyncio.open_connection(HOST, self.port, ssl=context, local_addr=(source, 0))
        self.talkers.append(Talker(reader, writer))
        return self.talkers[-1]

    async def until(self, condition):
        while not condition():  # noqa: ASYNC110 -- nobody tells of it
            await asyncio.sleep(0.005)


@pytest.fixture
def play(tmp_path):
    def play(scenario, files):
        async def run():
            place = Place(files, tmp_path / "users.json")
            try:
                async with asyncio.timeout(DEADLINE):
                    await scenario(place)
            finally:
                place.door.close()
                for talker in place.talkers:
                    talker.writer.transport.abort()
                await place.broker.stop(1.0)

        asyncio.run(run())

    return play


@pytest.fixture
def token(tmp_path):
    with changing(tmp_path / "users.json") as users:
        return users.add("shop", ["publish", "control"], ["default"])


def trusting(ca):
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def test_over_tls_a_user_with_its_token_is_served(play, ca, files, token, caplog):
    async def scenario(place):
        shop = await place.talker(trusting(ca))
        await shop.hello("web", token=token)
        shop.send(Publish(1, [task()]), Purge(2, []))
        assert (await shop.expect(Confirm)).accepted == 1

    caplog.set_level("INFO", "chervil.audit")
    play(scenario, files)
    assert f"{HOST} let in as shop by token; it calls itself web" in caplog.text
    assert token not in caplog.text


def test_a_client_certificate_names_its_user_and_a_token_is_not_needed(play, ca, files, token):
    async def scenario(place):
        context = trusting(ca)
        ca.issue_cert("other.example.org", "shop").configure_cert(context)
        shop = await place.talker(context)
        await shop.hello("web")
        assert place.broker.peers[1].identity.name == "shop"

    play(scenario, files._replace(client_ca=files.cert.with_name("ca.pem")))


def test_a_client_without_the_certificate_that_is_asked_for_is_refused_in_one_line(play, ca, files, caplog):
    async def scenario(place):
        shop = await place.talker(trusting(ca))
        with contextlib.suppress(OSError):
            assert await shop.reader.read() == b""
        await place.until(lambda: not place.broker.peers)

    play(scenario, files._replace(client_ca=files.cert.with_name("ca.pem")))
    lines = [line for line in caplog.messages if "refused" in line]
    assert len(lines) == 1
    assert f"a stranger from {HOST} refused" in lines[0]
    assert "AUTH_FAILED: TLS: the client has no certificate, and --tls-client-ca asks for one" in lines[0]


def test_who_does_not_speak_tls_is_told_in_the_log_how_to(play, files, caplog):
    async def scenario(place):
        plain = await place.talker(None)
        plain.send(Hello(1, 1, [], "web"))
        with contextlib.suppress(OSError):
            assert (await plain.reader.read())[:1] in (b"", b"\x15")  # at most an alert of TLS
        await place.until(lambda: not place.broker.peers)
        assert len(place.broker.strangers) == 0

    play(scenario, files)
    assert "its URL must begin with chervils://" in caplog.text


def test_strangers_count_before_tls_is_done(play, files, monkeypatch):
    monkeypatch.setattr(strangers_module, "PREAUTH_PER_ADDRESS_MAX", 2)

    async def scenario(place):
        silent = [await place.talker(None) for _ in range(2)]
        await place.until(lambda: len(place.broker.strangers) == 2)
        third = await place.talker(None)
        assert await third.reader.read() == b""
        assert place.broker.counters["refused_too_many"] == 1
        silent[0].vanish()
        await place.until(lambda: len(place.broker.strangers) == 1)

    play(scenario, files)


@pytest.mark.parametrize("begun", [False, True], ids=["in TLS", "without HELLO"])
def test_whose_address_has_most_strangers_makes_room_for_another_address_at_once(
    begun, play, ca, files, monkeypatch
):
    monkeypatch.setattr(strangers_module, "PREAUTH_PEERS_MAX", 2)

    async def scenario(place):
        context = trusting(ca) if begun else None
        hogs = [await place.talker(context) for _ in range(2)]
        await place.until(lambda: len(place.broker.strangers) == 2)
        with contextlib.suppress(EOFError):
            await (await place.talker(None)).next()  # one more from there gets no place
        other = await place.talker(trusting(ca), "127.0.0.2")
        other.send(Hello(1, 1, [], "web"))
        assert (await other.expect(Error)).code == Code.AUTH_REQUIRED
        assert begun == (b"makes room" in await hogs[0].reader.read())
        await place.until(lambda: len(place.broker.peers) == 1)
        assert len(place.broker.strangers) == 1
        assert len(place.door._entering) == (0 if begun else 1)
        assert place.broker.counters["refused_too_many"] == 2

    play(scenario, files)


def test_who_makes_room_in_tls_leaves_nothing_behind(play, files, monkeypatch):
    monkeypatch.setattr(strangers_module, "PREAUTH_PEERS_MAX", 2)

    async def scenario(place):
        for _ in range(2):
            await place.talker(None)
        await place.until(lambda: len(place.broker.strangers) == 2)
        gone = [weakref.ref(peer) for peer in place.broker.peers.values()]
        gc.disable()
        try:
            await place.talker(None, "127.0.0.2")
            await place.until(lambda: gone[0]() is None)
        finally:
            gc.enable()

    play(scenario, files)


def test_where_all_places_are_taken_who_has_not_said_hello_makes_room(play, token):
    async def scenario(place):
        place.broker.options = replace(place.broker.options, max_connections=3)
        known = await place.talker(None)
        await known.hello("web", token=token)
        hogs = [await place.talker(None, "127.0.0.2") for _ in range(2)]
        await place.until(lambda: len(place.broker.peers) == 3)
        await (await place.talker(None, "127.0.0.3")).hello("web", token=token)
        assert (await hogs[0].expect(Error)).message.startswith("it makes room for another address: 3 conn")
        last = await place.talker(None, "127.0.0.4")
        assert "use fewer" in (await last.expect(Error)).message
        known.send(Publish(1, [task()]))
        assert (await known.expect(Confirm)).accepted == 1

    play(scenario, None)


def test_tls_and_hello_have_one_deadline(play, files, monkeypatch):
    monkeypatch.setattr(door_module, "PREAUTH_SECONDS", 0.1)
    monkeypatch.setattr(peer_module, "PREAUTH_SECONDS", 0.1)

    async def scenario(place):
        silent = await place.talker(None)
        assert await silent.reader.read() == b""
        await place.until(lambda: not place.broker.peers)
        assert len(place.broker.strangers) == 0

    play(scenario, files)


def test_a_client_that_did_tls_and_says_nothing_is_sent_away(play, ca, files, monkeypatch):
    monkeypatch.setattr(peer_module, "PREAUTH_SECONDS", 0.3)

    async def scenario(place):
        silent = await place.talker(trusting(ca))
        assert (await silent.expect(Error)).code == Code.SLOW
        assert await silent.ended()

    play(scenario, files)


def test_a_certificate_that_was_reloaded_is_shown_to_who_comes_next(play, ca, files, token):
    async def scenario(place):
        before = await place.talker(trusting(ca))
        await before.hello("before", token=token)
        other = trustme.CA()
        issued = other.issue_cert(HOST)
        issued.cert_chain_pems[0].write_to_path(files.cert)
        issued.private_key_pem.write_to_path(files.key)
        place.tls.reload()
        with pytest.raises(ssl.SSLCertVerificationError):
            await place.talker(trusting(ca))
        after = await place.talker(trusting(other))
        await after.hello("after", token=token)
        before.send(Publish(1, [task()]))
        assert (await before.expect(Confirm)).accepted == 1

    play(scenario, files)


def test_users_who_were_removed_or_changed_are_sent_away_at_once(play, files, token, tmp_path):
    async def scenario(place):
        with changing(tmp_path / "users.json") as users:
            users.add("mail", ["publish"], ["default"])
        place.broker.refresh_users()
        shop = await place.talker(None)
        await shop.hello("web", token=token)
        with changing(tmp_path / "users.json") as users:
            mail = users.rotate("mail")
        place.broker.refresh_users()
        other = await place.talker(None)
        await other.hello("mailer", token=mail)
        with changing(tmp_path / "users.json") as users:
            users.remove("shop")
        place.broker.refresh_users()
        assert (await shop.expect(Error)).code == Code.AUTH_FAILED
        assert await shop.ended()
        other.send(Publish(1, [task()]), Goodbye("DONE"))
        assert (await other.expect(Confirm)).accepted == 1
        assert len(place.broker.sessions) <= 1

    play(scenario, None)


def test_a_users_file_that_became_nonsense_leaves_what_was(play, token, tmp_path, caplog):
    async def scenario(place):
        (tmp_path / "users.json").write_text("nonsense")
        place.broker.refresh_users()
        place.broker.refresh_users()
        shop = await place.talker(None)
        await shop.hello("web", token=token)

    play(scenario, None)
    assert caplog.text.count("is not a users file") == 1


def test_where_no_descriptor_is_left_the_door_waits_and_opens_again(play, token, monkeypatch, caplog):
    monkeypatch.setattr(door_module, "PAUSE_SECONDS", 0.05)

    async def scenario(place):
        class Exhausted:
            def __init__(self, sock, failures):
                self.sock, self.failures = sock, failures

            def accept(self):
                if self.failures:
                    self.failures -= 1
                    raise OSError(errno.EMFILE, "Too many open files")
                return self.sock.accept()

            def __getattr__(self, name):
                return getattr(self.sock, name)

        place.door._sock = Exhausted(place.sock, 2)
        shop = await place.talker(None)
        await shop.hello("web", token=token)

    play(scenario, None)
    assert caplog.text.count("cannot accept connections: Too many open files") == 2


def test_what_waits_for_a_client_that_reads_nothing_over_tls_is_seen(play, ca, files, tmp_path):
    with changing(tmp_path / "users.json") as users:
        token = users.add("both", ["publish", "consume"], ["default"])

    async def scenario(place):
        client = await place.talker(trusting(ca))
        await client.hello("web", token=token)
        row = task()
        client.send(Publish(1, [row]), Subscribe(2, ["default"]), Credit(1))
        await client.expect(Deliver)
        client.send(Complete(1, [[row[0], 1, 1, "json", b"r" * 7_000_000]]))
        await client.expect(Completed)
        client.writer.transport.pause_reading()
        client.send(Query(2, [row[0]]))
        (peer,) = place.broker.peers.values()
        await place.until(lambda: peer.held_up)
        assert peer.unsent > 2_000_000

    play(scenario, files)


def test_who_is_sent_away_and_does_not_answer_the_end_of_tls_is_gone_soon(play, ca, files, monkeypatch):
    monkeypatch.setattr(peer_module, "PREAUTH_SECONDS", 0.2)

    async def scenario(place):
        def silent():
            sock = socket.create_connection((HOST, place.port))
            with trusting(ca).wrap_socket(sock, server_hostname=HOST):
                left.wait(DEADLINE)

        left = threading.Event()
        client = asyncio.get_running_loop().run_in_executor(None, silent)
        await place.until(lambda: place.broker.counters["refused_slow"] == 1)
        assert len(place.broker.strangers) == 0
        await place.until(lambda: not place.broker.peers)
        left.set()
        await client

    play(scenario, files)


def test_a_door_that_closes_sends_those_away_who_are_in_tls(play, files):
    async def scenario(place):
        half = await place.talker(None)
        half.send_raw(b"\x16\x03\x01")
        await place.until(lambda: len(place.broker.strangers) == 1)
        place.door.close()
        await place.until(lambda: not place.broker.peers)

    play(scenario, files)


def test_a_users_file_that_could_not_be_read_is_read_again_and_told_once(
    play, token, tmp_path, monkeypatch, caplog
):
    async def scenario(place):
        shop = await place.talker(None)
        await shop.hello("web", token=token)
        with changing(tmp_path / "users.json") as users:
            users.remove("shop")
        with monkeypatch.context() as broken:
            broken.setattr(users_module, "load", unreadable)
            place.broker.refresh_users()
            place.broker.refresh_users()
        place.broker.refresh_users()
        assert (await shop.expect(Error)).code == Code.AUTH_FAILED

    def unreadable(path):
        raise UsersUnreadable(f"cannot read {path}: Too many open files")

    play(scenario, None)
    assert caplog.text.count("Too many open files") == 1
