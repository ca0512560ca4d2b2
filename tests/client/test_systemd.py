"""A socket of ours stands where systemd's would; descriptors are passed as it passes them."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chervil import systemd
from chervil.systemd import ServiceManager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Hears what a service says; at `tmp_path`/notify."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


@pytest.fixture
def service(manager: socket.socket) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": manager.getsockname()})


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def silent(manager: socket.socket) -> bool:
    manager.setblocking(False)
    try:
        manager.recv(4096)
    except BlockingIOError:
        return True
    return False


def test_each_word_is_what_systemd_reads(manager, service):
    service.ready()
    service.ready("ready on chervil://127.0.0.1:2437")
    service.stopping("handing tasks back")
    service.alive()
    service.status("4 tasks run")
    assert heard(manager) == ["READY=1"]
    assert heard(manager) == ["READY=1", "STATUS=ready on chervil://127.0.0.1:2437"]
    assert heard(manager) == ["STOPPING=1", "STATUS=handing tasks back"]
    assert heard(manager) == ["WATCHDOG=1"]
    assert heard(manager) == ["STATUS=4 tasks run"]


def test_a_reload_says_when_on_the_monotonic_clock(manager, service, monkeypatch):
    monkeypatch.setattr("time.monotonic_ns", lambda: 7_000_999)
    service.reloading()
    assert heard(manager) == ["RELOADING=1", "MONOTONIC_USEC=7000"]


def test_a_status_stays_one_short_line_and_says_nothing_else(manager, service):
    service.status("a\nREADY=1\r\n b")
    service.status("x" * 1000)
    service.status("half a pair: \ud800")
    assert heard(manager) == ["STATUS=a READY=1 b"]
    assert heard(manager) == ["STATUS=" + "x" * systemd.STATUS_MAX]
    assert heard(manager) == ["STATUS=half a pair: ?"]


def test_an_empty_status_is_not_sent(manager, service):
    service.status(" \n")
    assert silent(manager)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_an_abstract_socket_is_reached():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"chervil-test-{os.getpid()}"
        manager.bind("\0" + name)
        manager.settimeout(5)
        ServiceManager({"NOTIFY_SOCKET": "@" + name}).ready()
        assert heard(manager) == ["READY=1"]


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative/path"])
def test_without_an_address_that_can_be_used_words_go_nowhere(address, monkeypatch):
    def no_socket(*args: object) -> None:
        raise AssertionError("a socket was made")

    service = ServiceManager({"NOTIFY_SOCKET": address})
    monkeypatch.setattr("socket.socket", no_socket)
    service.ready()
    service.alive()


def test_a_manager_that_is_gone_does_no_harm(manager, service):
    manager.close()
    service.ready()
    service.alive()


def test_want_of_a_descriptor_does_no_harm(service, monkeypatch):
    def exhausted(*args: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("socket.socket", exhausted)
    service.alive()


def test_the_watchdogs_word_is_never_waited_for(tmp_path, monkeypatch):
    waits = []
    service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    monkeypatch.setattr("socket.socket.settimeout", lambda self, seconds: waits.append(seconds))
    service.alive()
    service.ready()
    assert waits == [0.0, systemd.TELL_SECONDS]


@pytest.mark.parametrize(
    ("usec", "pid", "every"),
    [
        ("30000000", None, 15.0),
        ("30000000", str(os.getpid()), 15.0),
        ("1", None, 0.5e-6),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        ("", None, None),
    ],
)
def test_the_watchdog_is_answered_at_half_its_limit_where_it_watches_this_process(usec, pid, every):
    environ = {"WATCHDOG_USEC": usec} | ({} if pid is None else {"WATCHDOG_PID": pid})
    assert ServiceManager(environ).alive_every == every


def test_staying_alive_says_so_again_and_again(manager):
    service = ServiceManager({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "2000"})

    async def hear_three() -> list[str]:
        staying = asyncio.create_task(service.stay_alive())
        manager.setblocking(False)
        words = [await asyncio.get_running_loop().sock_recv(manager, 4096) for _ in range(3)]
        staying.cancel()
        return [word.decode() for word in words]

    assert asyncio.run(asyncio.wait_for(hear_three(), 5)) == ["WATCHDOG=1"] * 3


def test_staying_alive_ends_at_once_where_nobody_watches():
    asyncio.run(asyncio.wait_for(ServiceManager({}).stay_alive(), 5))


def test_what_was_meant_for_this_process_leaves_the_environment(tmp_path):
    environ = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": str(os.getpid()),
        "LISTEN_FDS": "2",
        "LISTEN_PID": "1",
        "LISTEN_FDNAMES": "a:b",
        "INVOCATION_ID": "stays",
    }
    assert ServiceManager(environ).sockets == []
    assert environ == {"INVOCATION_ID": "stays"}


def test_an_unmanaged_process_has_no_sockets_and_no_watchdog():
    service = ServiceManager({})
    assert (service.sockets, service.alive_every) == ([], None)


#: Puts what argv names at the descriptors from 3 on, says that they are its own, and prints what
#: ServiceManager makes of it.
PASS = """
import json, os, socket, sys
from chervil import systemd
made = []
for kind in sys.argv[2:]:
    if kind == "tcp":
        made.append(socket.create_server(("127.0.0.1", 0)))
    elif kind == "unix":
        made.append(socket.socket(socket.AF_UNIX)); made[-1].bind(sys.argv[1]); made[-1].listen()
    elif kind == "datagram":
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    elif kind == "silent":
        made.append(socket.socket(socket.AF_INET))
    elif kind == "file":
        made.append(open(os.devnull))
high = [os.dup(os.dup2(one.fileno(), 100 + index)) for index, one in enumerate(made)]
for one in made:
    one.close()
for index, descriptor in enumerate(high):
    os.dup2(descriptor, 3 + index, inheritable=True)
names = [socket.socket(fileno=os.dup(3 + i)).getsockname() for i, k in enumerate(sys.argv[2:]) if k in ("tcp", "unix")]
os.environ |= {"LISTEN_PID": str(os.getpid())}
os.environ.setdefault("LISTEN_FDS", str(len(made)))
try:
    manager = systemd.ServiceManager()
except ValueError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()
print(json.dumps({
    "filenos": [sock.fileno() for sock in manager.sockets],
    "same": [sock.getsockname() for sock in manager.sockets] == names,
    "inheritable": [os.get_inheritable(sock.fileno()) for sock in manager.sockets],
    "left": [name for name in os.environ if name.startswith("LISTEN_")],
}))
"""


def passed(tmp_path: Path, *kinds: str, **environment: str) -> dict:
    run = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", PASS, str(tmp_path / "sock"), *kinds],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return json.loads(run.stdout)


def test_passed_sockets_are_taken_in_order_and_no_child_inherits_them(tmp_path):
    assert passed(tmp_path, "tcp", "unix") == {
        "filenos": [3, 4],
        "same": True,
        "inheritable": [False, False],
        "left": [],
    }


@pytest.mark.parametrize("kind", ["datagram", "silent", "file"])
def test_a_descriptor_that_does_not_listen_for_streams_is_refused(tmp_path, kind):
    error = passed(tmp_path, "tcp", kind)["error"]
    assert "descriptor 4, which does not listen for streams" in error
    assert "Accept=no" in error


def test_a_descriptor_that_is_not_open_is_refused(tmp_path):
    error = passed(tmp_path, "tcp", LISTEN_FDS="90")["error"]
    assert re.fullmatch(r"the service manager passes descriptor \d+, which is not open", error)


def test_a_number_of_sockets_that_is_none_is_refused(tmp_path):
    assert "LISTEN_FDS='many' is no number" in passed(tmp_path, LISTEN_FDS="many")["error"]
