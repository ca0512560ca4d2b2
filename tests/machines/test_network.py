"""The network itself does what the tests on it rely on."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.stage import ROOT, Process, until, wait_until_gone
from tests.faults.processes import children, parents
from tests.machines.network import Network, NetworkError

pytestmark = pytest.mark.e2e

PORT = 7000

#: Says back what it hears, and how each connection ends.
ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listens", flush=True)
while True:
    peer, _ = server.accept()
    print("accepted", flush=True)
    try:
        while data := peer.recv(100):
            peer.sendall(data)
        print("end of file", flush=True)
    except ConnectionError as error:
        print(type(error).__name__, flush=True)
    peer.close()
"""

#: Sends its input line by line, and says what comes back in the seconds it waits.
TALK = """
import socket, sys
try:
    peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))
    print("connected", flush=True)
    for line in sys.stdin:
        peer.sendall(line.encode())
        print("heard", peer.recv(100).decode(), end="", flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
"""


class Talk:
    """A program on a machine that talks to the echo on another."""

    def __init__(self, network: Network, name: str, to: str, patience: float = 5.0) -> None:
        self._popen = subprocess.Popen(
            [
                *network.entrance(name),
                sys.executable,
                "-c",
                TALK,
                network.addresses[to],
                str(PORT),
                str(patience),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().rstrip("\n")

    def send(self, text: str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(text + "\n")
        self._popen.stdin.flush()

    def close(self) -> None:
        self._popen.kill()
        self._popen.communicate()


@pytest.fixture
def network():
    with Network("server", "client", "other") as network:
        yield network


@pytest.fixture
def echo(network, tmp_path):
    process = start_echo(network, tmp_path)
    yield process
    process.stop()


def start_echo(network: Network, folder: Path) -> Process:
    address = network.addresses["server"]
    command = [*network.entrance("server"), sys.executable, "-c", ECHO, address, str(PORT)]
    process = Process("echo", command, folder)
    process.wait_for("listens")
    return process


@pytest.fixture
def talk(network, echo):
    opened = []

    def talk(name: str = "client", patience: float = 5.0) -> Talk:
        opened.append(Talk(network, name, "server", patience))
        return opened[-1]

    yield talk
    for each in opened:
        each.close()


def test_machines_reach_each_other(talk):
    for each in (talk("client"), talk("other")):
        assert each.says() == "connected"


def test_nothing_outside_is_touched():
    before = outside()
    with Network("server", "client"):
        assert outside() == before
    assert outside() == before


def test_cut_is_silent_and_healed_by_what_was_sent_meanwhile(network, talk):
    talking = talk(patience=10)
    talking.says()
    network.cut("client")
    talking.send("one")
    # Nobody is told: the connection stays, and what was sent is sent again.
    assert "ESTAB" in connections(network, "client")[0]
    assert "UP" in network.run("client", "ip", "-brief", "link", "show", "eth0")
    network.heal("client")
    assert talking.says() == "heard one"


@pytest.mark.parametrize("cut", ["server", "client"])
def test_who_connects_across_a_cut_hears_nothing_at_all(network, talk, cut):
    network.cut(cut)
    assert talk(patience=0.5).says() == "TimeoutError"
    network.heal(cut)
    assert talk().says() == "connected"


def test_cut_of_one_machine_leaves_the_others_alone(network, talk):
    talking = talk("other")
    talking.says()
    network.cut("client")
    talking.send("one")
    assert talking.says() == "heard one"


def test_reset_is_seen_at_both_ends(network, echo, talk):
    talking = talk()
    talking.says()
    echo.wait_for("accepted")
    assert network.reset("server") == 1
    echo.wait_for("ConnectionAbortedError")  # what the kernel says where it was asked to
    talking.send("one")
    assert talking.says() == "ConnectionResetError"


def test_machine_without_power_leaves_its_peer_half_open_until_it_is_spoken_to(network, echo, talk):
    talking = talk()
    talking.says()
    echo.wait_for("accepted")
    network.power_off("client")
    network.power_on("client")
    assert len(connections(network, "server")) == 1, "neither FIN nor RST came"
    assert not network.processes("client")
    # The machine that came back answers with RST, once it hears of a connection that it never had.
    echo.signal(signal.SIGKILL)
    echo.ended()
    until(lambda: not connections(network, "server"), "the connection is gone", 5)


def test_machine_that_comes_back_has_its_address_again(network, echo, talk, tmp_path):
    network.power_off("server")
    network.power_on("server")
    again = start_echo(network, tmp_path)
    assert talk().says() == "connected"
    again.stop()


def test_closed_network_leaves_no_process_and_so_no_namespace(tmp_path):
    before = set(children(os.getpid(), parents()))
    with Network("server", "client") as network:
        process = start_echo(network, tmp_path)
        here = set(children(os.getpid(), parents())) - before
        assert len(here) == 4, "two machines, the switch and the echo"
    assert process.ended() == -signal.SIGKILL
    process.stop()
    assert not here & parents().keys()


def test_network_that_was_not_closed_ends_with_its_process():
    script = "from tests.machines.network import Network\nNetwork('a', 'b')\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        holders = children(owner.pid, parents())
        assert len(holders) == 3
        owner.kill()
    assert wait_until_gone(holders, 5) == []


def test_error_says_what_was_tried_and_what_came_of_it(network):
    with pytest.raises(NetworkError, match=r"ip link show nothing: .*does not exist"):
        network.run("server", "ip", "link", "show", "nothing")


@pytest.mark.parametrize(
    ("required", "code", "said"), [("", 0, "1 skipped"), ("1", 1, "CHERVIL_REQUIRE_NETNS")]
)
def test_where_no_network_can_be_made_the_tests_are_skipped_or_fail(tmp_path, required, code, said):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", "error_says"]
    environment = os.environ | {"PATH": str(tmp_path), "CHERVIL_REQUIRE_NETNS": required}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert said in done.stdout
    assert "not installed: ip, bridge" in done.stdout


def outside() -> tuple[object, ...]:
    """Links and routes of the machine that the tests run on."""
    return socket.if_nameindex(), Path("/proc/net/route").read_text()


def connections(network: Network, name: str) -> list[str]:
    """The TCP connections that a machine knows, a line each."""
    return network.run(name, "ss", "--tcp", "--no-header").splitlines()
