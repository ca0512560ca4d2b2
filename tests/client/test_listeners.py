import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from chervil import listeners
from chervil.listeners import listens, stranger_at


@pytest.fixture
def path(tmp_path):
    """Somebody listens there."""
    path = tmp_path / "broker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path


def file_of(monkeypatch, uid):
    """Has every file look as if it belonged to this user."""
    real = Path.lstat
    monkeypatch.setattr(Path, "lstat", lambda path: SimpleNamespace(st_mode=real(path).st_mode, st_uid=uid))


def listener_of(monkeypatch, uid):
    """Has every listener look as if it were this user's."""
    told = SimpleNamespace(size=12, unpack=lambda packed: (1, uid, uid))
    monkeypatch.setattr(listeners, "_CREDENTIALS", told)


def test_our_own_listener_is_found(path, caplog):
    assert listens(path, "that")
    assert caplog.messages == []


def test_a_socket_file_of_another_user_is_passed_over_with_a_warning(path, monkeypatch, caplog):
    file_of(monkeypatch, 4711)
    assert not listens(path, "-b that")
    assert caplog.messages == [
        f"{path} is of user number 4711 and is passed over; if that is the broker you mean, type -b that"
    ]


def test_a_listener_of_another_user_behind_a_file_of_ours_is_passed_over_too(path, monkeypatch, caplog):
    listener_of(monkeypatch, 4711)
    assert not listens(path, "-b that")
    assert "is of user number 4711" in caplog.text


def test_roots_listener_is_trusted(path, monkeypatch, caplog):
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    file_of(monkeypatch, 0)
    listener_of(monkeypatch, 0)
    assert listens(path, "that")
    assert caplog.messages == []


def test_where_the_system_does_not_say_who_listens_the_files_owner_decides(path, monkeypatch):
    monkeypatch.delattr(socket, "SO_PEERCRED")
    assert listens(path, "that")
    file_of(monkeypatch, 4711)
    assert not listens(path, "that")


def test_what_is_no_socket_or_has_no_listener_is_nobodys(path, tmp_path, caplog):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "gone"))
    for name in ("file", "link", "gone", "none"):
        assert not listens(tmp_path / name, "that")
    assert caplog.messages == []


# Ports

NOBODY = 4_000_000_001


@pytest.fixture
def foreign(monkeypatch):
    """Has everything that listens be somebody else's; his name."""
    monkeypatch.setattr(listeners, "is_trusted", lambda uid: False)
    return listeners.user_name(os.geteuid())


def server_at(host, **more):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family, **more)


LISTENING = [
    ("127.0.0.1", "127.0.0.1", {}),
    ("0.0.0.0", "127.0.0.1", {}),
    ("::1", "::1", {}),
    ("::", "::1", {}),
    ("::", "127.0.0.1", {"dualstack_ipv6": True}),
]


@pytest.mark.parametrize(("at", "reached_at", "how"), LISTENING)
def test_who_listens_on_a_port_is_found_and_trusted_where_it_is_us(at, reached_at, how, monkeypatch):
    with server_at(at, **how) as server:
        peer = (reached_at, server.getsockname()[1], 0, 0)
        assert stranger_at(peer, NOBODY) is None
        monkeypatch.setattr(listeners, "is_trusted", lambda uid: False)
        assert stranger_at(peer, NOBODY) == listeners.user_name(os.geteuid())
        assert stranger_at(peer, os.geteuid()) is None, "who has left the token"


def test_another_machine_and_another_port_are_nobodys_that_is_known(foreign):
    with server_at("127.0.0.1") as server:
        port = server.getsockname()[1]
        assert stranger_at(("127.0.0.1", port), NOBODY) == foreign
        assert stranger_at(("192.0.2.1", port), NOBODY) is None
        assert stranger_at(("fe80::1", port, 0, 2), NOBODY) is None
    assert stranger_at(("127.0.0.1", port), NOBODY) is None
    assert stranger_at(("::1", port, 0, 0), NOBODY) is None


def test_of_a_busy_machine_no_connection_is_read(foreign, monkeypatch, tmp_path):
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
    row = "{:4}: 0100007F:{} 00000000:0000 {} 00000000:00000000 00:00000000 00000000  4711        0 1\n"
    table = tmp_path / "tcp"
    listening = [row.format(number, f"{number:04X}", "0A") for number in range(1, 40)]
    connected = [row.format(number, "0985", "01") for number in range(40, 10_000)]
    table.write_text(head + "".join(listening + connected))
    monkeypatch.setattr(listeners, "_TABLE", str(table))
    monkeypatch.setattr(listeners, "_TABLE_6", os.devnull)
    read = []
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: read.append(size) or real(fd, size))
    assert stranger_at(("127.0.0.1", 39), NOBODY) == "user number 4711"
    assert stranger_at(("127.0.0.1", 2437), NOBODY) is None
    assert sum(read) < 4 * len("".join(listening))


def test_a_system_without_such_a_table_knows_nobody(foreign, monkeypatch, tmp_path):
    monkeypatch.setattr(listeners, "_TABLE", str(tmp_path / "none"))
    with server_at("127.0.0.1") as server:
        assert stranger_at(("127.0.0.1", server.getsockname()[1]), NOBODY) is None


@pytest.mark.parametrize(
    ("users", "told"), [("0 0 4294967295\n", True), ("0 1000 1\n", False), (None, False)]
)
def test_in_a_user_namespace_root_may_look_like_nobody(foreign, monkeypatch, users, told):
    def read_text(path):
        if users is None:
            raise FileNotFoundError
        return users

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(listeners, "_UNKNOWN_USER", os.geteuid())
    with server_at("127.0.0.1") as server:
        stranger = stranger_at(("127.0.0.1", server.getsockname()[1]), NOBODY)
    assert (stranger is not None) is told
