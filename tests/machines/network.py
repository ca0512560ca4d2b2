"""A network of this test's own: machines with addresses, joined by a switch whose ports can be cut.

Everything is in network namespaces that live as long as the processes that hold them, and those end when
their standard input does: nothing is left behind, even by a test that is killed. Nothing outside of the
namespaces is touched.

What is cut here is cut at the switch: a machine's own link stays up, so that nobody is told. `unplug` alone
takes that down.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.e2e.stage import wait_until_gone

#: Programs of iproute2 and util-linux.
TOOLS = ("ip", "bridge", "ss", "unshare", "nsenter")
#: What the addresses of machines begin with; each has a number of its own.
PREFIX = "10.66.0"
#: Seconds for a command that configures something, or for a namespace's last process to be gone.
COMMAND_SECONDS = 10.0
#: Says that its namespace is there, and then keeps it until it is let go.
_HOLD = ("sh", "-c", "echo; exec cat")


class NetworkError(Exception):
    """A command for the network failed; the message has what it said."""


class _Namespace:
    """A network namespace, and the process that keeps it."""

    def __init__(self, inside: "_Namespace | None" = None) -> None:
        """`inside`: the namespace whose user may make this one, where we are not root."""
        before = [] if inside is None or _is_root() else inside.entering("--user", "--preserve-credentials")
        private = [] if inside is not None or _is_root() else ["--user", "--map-root-user"]
        self._holder = subprocess.Popen(
            [*before, "unshare", *private, "--net", *_HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if not self._holder.stdout.readline():
            said = self._holder.stderr.read().decode().strip()
            self.close()
            raise NetworkError(f"no network namespace could be made: {said}")

    @property
    def pid(self) -> int:
        return self._holder.pid

    def entering(self, *more: str) -> list[str]:
        """What to put before a command to run it with the holder's namespaces named."""
        return ["nsenter", f"--target={self.pid}", *more, "--"]

    @property
    def entrance(self) -> list[str]:
        """What to put before a command to run it in here; the process keeps its id."""
        return self.entering("--net", *([] if _is_root() else ["--user", "--preserve-credentials"]))

    def run(self, *command: str, text: str = "") -> str:
        """Runs a command in here and gives what it wrote. Raises NetworkError."""
        done = subprocess.run(
            [*self.entrance, *command],
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            raise NetworkError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def processes(self) -> list[int]:
        """Those that run in here, the holder not counted."""
        here = Path(f"/proc/{self.pid}/ns/net").stat().st_ino
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.pid:
                with contextlib.suppress(OSError):
                    if (entry / "ns/net").stat().st_ino == here:
                        found.append(int(entry.name))
        return found

    def close(self) -> None:
        """Lets go: without a process in it the namespace is gone, with its links and sockets."""
        self._holder.kill()
        self._holder.wait(COMMAND_SECONDS)
        for stream in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            assert stream is not None
            stream.close()


class Network:
    """Machines by name, each with an address, all on one switch. To be closed."""

    def __init__(self, *names: str) -> None:
        self.addresses = {name: f"{PREFIX}.{number}" for number, name in enumerate(names, 1)}
        self._machines: dict[str, _Namespace] = {}
        self._switch = _Namespace()
        try:
            # Without STP a port forwards as soon as it is up, and its state is ours to set.
            self._switch.run("ip", "link", "add", "switch", "type", "bridge", "stp_state", "0")
            self._switch.run("ip", "link", "set", "switch", "up")
            for name in names:
                self.power_on(name)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def entrance(self, name: str) -> list[str]:
        """What to put before a command to run it on a machine."""
        return self._machines[name].entrance

    def run(self, name: str, *command: str) -> str:
        """Runs a short command on a machine and gives what it wrote. Raises NetworkError."""
        return self._machines[name].run(*command)

    def processes(self, name: str) -> list[int]:
        """What runs on a machine."""
        return self._machines[name].processes()

    # What networks do

    def cut(self, *names: str) -> None:
        """From now on these machines hear nothing and nobody hears them; nobody is told."""
        self._set_ports("disabled", names)

    def heal(self, *names: str) -> None:
        """Ends a cut."""
        self._set_ports("forwarding", names)

    def unplug(self, name: str) -> None:
        """Takes a machine's own link down: its programs are told that there is no network."""
        self._machines[name].run("ip", "link", "set", "eth0", "down")

    def plug_in(self, name: str) -> None:
        """Ends an `unplug`."""
        self._machines[name].run("ip", "link", "set", "eth0", "up")

    def reset(self, name: str) -> int:
        """Breaks all established connections of a machine with RST, for both ends; how many there were."""
        broken = self._machines[name].run("ss", "--kill", "--no-header", "--tcp", "state", "established")
        return len(broken.splitlines())

    def power_off(self, name: str) -> None:
        """Ends a machine with all that runs on it, without a word: its peers' connections are half-open."""
        self.cut(name)
        machine = self._machines.pop(name)
        _end_processes(machine)
        # By hand: a namespace is taken apart some time after its end, and its cable with it.
        self._switch.run("ip", "link", "delete", _port(name))
        machine.close()

    def power_on(self, name: str) -> None:
        """A machine with this name's address, on which nothing runs and which remembers no connection."""
        machine = _Namespace(self._switch)
        self._machines[name] = machine
        address, port = self.addresses[name], _port(name)
        self._switch.run(
            *("ip", "link", "add", port, "type", "veth"),
            *("peer", "name", "eth0", "address", _mac(address), "netns", str(machine.pid)),
        )
        self._switch.run("ip", "link", "set", port, "master", "switch", "up")
        # Neighbours are known for good, as behind a router: a cut peer would else be "no route to host"
        # after three seconds, which is more than a silent network tells.
        neighbours = [
            f"neigh replace {other} lladdr {_mac(other)} nud permanent dev eth0"
            for other in self.addresses.values()
            if other != address
        ]
        configuration = [
            "link set lo up",
            f"addr add {address}/24 dev eth0",
            "link set eth0 addrgenmode none up",
            *neighbours,
        ]
        machine.run("ip", "-batch", "-", text="\n".join(configuration))

    def close(self) -> None:
        """Ends all that runs on the machines, and then the machines."""
        while self._machines:
            _, machine = self._machines.popitem()
            _end_processes(machine)
            machine.close()
        self._switch.close()

    def _set_ports(self, state: str, names: tuple[str, ...]) -> None:
        for name in names:
            # Not `ip link set ... type bridge_slave state`, which ends with 0 and changes nothing.
            self._switch.run("bridge", "link", "set", "dev", _port(name), "state", state)


def missing() -> str | None:
    """Why there can be no such network here; None where there can."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    try:
        with Network("only"):
            return None
    except NetworkError as error:
        return str(error)


def _end_processes(machine: _Namespace) -> None:
    """Kills what runs in a namespace; returns when all of it is gone."""
    while there := machine.processes():  # again, for what was forked meanwhile
        for pid in there:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        left = wait_until_gone(there, COMMAND_SECONDS)
        assert not left, f"killed, and still there: {left}"


def _is_root() -> bool:
    return os.geteuid() == 0


def _port(name: str) -> str:
    """The switch's end of a machine's cable; Linux allows it 15 characters."""
    return f"to-{name}"[:15]


def _mac(address: str) -> str:
    return f"02:00:00:00:00:{int(address.rpartition('.')[2]):02x}"
