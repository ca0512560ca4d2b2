"""The systemd units: valid, of flags that there are, and in step with the code that they start."""

import shutil
import subprocess
from pathlib import Path

import pytest

from chervil.address import DEFAULT_URL
from chervil.cli import exits
from chervil.statedir import state_dir
from chervil_broker import daemon, listen
from chervil_broker.options import BrokerOptions
from tests.deploy.commandlines import DEPLOY, ROOT, in_shell, mistakes

BROKER, SOCKET, WORKER = "chervil-broker.service", "chervil-broker.socket", "chervil-worker@.service"
UNITS = (BROKER, SOCKET, WORKER)


def settings(unit: str) -> dict[str, list[str]]:
    """The settings of a unit, those of all sections together, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / unit).read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def seconds(text: str) -> float:
    return float(text.removesuffix("min")) * 60 if text.endswith("min") else float(text.removesuffix("s"))


def verify(folder: Path, *names: str) -> str:
    """What systemd has to say against units; nothing where they are right."""
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(folder / name) for name in names)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return ran.stdout + ran.stderr or ("" if ran.returncode == 0 else f"exit {ran.returncode}")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units in a folder of their own, with programs that are there."""
    true = shutil.which("true")
    for unit in UNITS:
        text = (DEPLOY / unit).read_text()
        for program in ("/opt/chervil/bin/chervil", "/srv/%i/.venv/bin/chervil"):
            text = text.replace(program, str(true))
        (tmp_path / unit.replace("@", "@shop")).write_text(text)
    return tmp_path


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")


@needs_systemd
def test_systemd_has_nothing_to_say_against_them(installed):
    assert verify(installed, *(path.name for path in installed.iterdir())) == ""


@needs_systemd
def test_systemd_would_say_what_is_wrong(installed):
    unit = installed / BROKER
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdogSecs="))
    assert "WatchdogSecs" in verify(installed, BROKER)


@pytest.mark.parametrize(("unit", "verb"), [(BROKER, "broker"), (WORKER, "worker")])
def test_what_is_started_is_there(unit, verb):
    [start] = settings(unit)["ExecStart"]
    [words] = in_shell(start)
    assert words[0] == verb
    assert mistakes(words) == []


@pytest.mark.parametrize("unit", [BROKER, WORKER])
def test_the_path_is_where_the_document_installs_it(unit):
    [start] = settings(unit)["ExecStart"]
    folder = start.split()[0].removesuffix("/bin/chervil").replace("%i", "shop")
    assert f"python3 -m venv {folder}" in (ROOT / "docs" / "deployment.md").read_text()


@pytest.mark.parametrize("unit", [BROKER, WORKER])
def test_systemd_is_told_when_it_is_ready_and_that_it_lives(unit):
    found = settings(unit)
    assert found["Type"] == ["notify"]
    assert seconds(found["WatchdogSec"][0]) >= 10


def test_a_reload_reaches_the_broker_and_a_worker_has_none():
    assert settings(BROKER)["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert "ExecReload" not in settings(WORKER)


def test_the_broker_has_time_for_its_last_words_and_descriptors_for_its_connections():
    found = settings(BROKER)
    assert seconds(found["TimeoutStopSec"][0]) > 2 * daemon.STOP_GRACE
    assert int(found["LimitNOFILE"][0]) > BrokerOptions().max_connections


def test_a_broker_whose_command_line_is_wrong_is_not_started_again():
    assert settings(BROKER)["RestartPreventExitStatus"] == [str(exits.USAGE)]


def test_a_broker_that_dies_is_started_again_however_often_and_one_that_its_socket_starts_over_and_over_is_not():
    """Who waits at the socket has systemd start a broker that ended with USAGE, several times a second."""
    found = settings(BROKER)
    restarts = seconds(found["StartLimitIntervalSec"][0]) / seconds(found["RestartSec"][0])
    assert restarts < int(found["StartLimitBurst"][0]) <= 2 * restarts


def test_the_broker_never_starts_without_its_socket_and_both_restart_in_one_command():
    """`systemctl restart` of socket and service cannot bind the socket while the service still has it."""
    found = settings(BROKER)
    assert found["Requires"] == [SOCKET]
    assert SOCKET in found["After"][0].split()


def test_the_broker_has_time_to_read_its_journal():
    assert seconds(settings(BROKER)["TimeoutStartSec"][0]) >= 600


def test_the_brokers_state_folder_is_where_its_programs_look(monkeypatch):
    found = settings(BROKER)
    assert "XDG_STATE_HOME=%S" in found["Environment"]
    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib")
    assert state_dir() == Path("/var/lib", found["StateDirectory"][0])


def test_the_journal_is_in_the_brokers_state_folder(monkeypatch):
    found = settings(BROKER)
    assert not {"CHERVIL_DATA"} & {word.split("=")[0] for word in found["Environment"]}
    assert found["StateDirectoryMode"] == ["0700"]
    monkeypatch.delenv("CHERVIL_DATA", raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/chervil")
    assert BrokerOptions().folder == Path("/var/lib", found["StateDirectory"][0])


def test_the_socket_unit_has_the_default_address_and_the_brokers_backlog():
    found = settings(SOCKET)
    assert found["ListenStream"][0] == DEFAULT_URL.removeprefix("chervil://")
    assert int(found["Backlog"][0]) == listen.BACKLOG
    assert (found["SocketMode"], found["SocketUser"]) == (["0600"], settings(BROKER)["User"])
    assert found["Accept"] == ["no"]


def test_a_worker_alone_is_told_to_stop_and_the_rest_only_killed_when_time_is_up():
    found = settings(WORKER)
    assert (found["KillMode"], found["KillSignal"]) == (["mixed"], ["SIGTERM"])
    assert seconds(found["TimeoutStopSec"][0]) >= 60


def test_a_child_that_the_kernel_kills_does_not_stop_its_worker():
    assert settings(WORKER)["OOMPolicy"] == ["continue"]


def test_a_worker_is_not_the_brokers_user():
    assert settings(WORKER)["User"] != settings(BROKER)["User"]
