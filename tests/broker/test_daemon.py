"""The broker as a process: what it says, what it leaves behind, how it ends."""

import asyncio
import signal
import socket
import stat

import pytest

from chervil.address import BrokerURL, Found
from chervil.client import Client
from chervil.exceptions import OperationalError
from chervil_broker import daemon
from tests.broker.talk import task
from tests.e2e.stage import Stage, staged

pytestmark = pytest.mark.e2e


@pytest.fixture
def stage(tmp_path):
    with staged(tmp_path) as stage:
        yield stage


def start(stage: Stage, *flags: str):
    return stage.run("broker", ["chervil_broker", *flags], XDG_STATE_HOME=str(stage.folder / "state"))


def url_of(line: str) -> BrokerURL:
    return BrokerURL.parse(next(word for word in line.split() if word.startswith("chervil://")).rstrip(";,"))


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_it_serves_tcp_with_a_token_that_its_user_finds(loop, stage, monkeypatch):
    broker = start(stage, "--bind", "127.0.0.1:0", "--memory", "--loop", loop)
    url = url_of(broker.wait_for("ready on"))
    assert any("nothing is kept on disk" in line for line in broker.output)
    monkeypatch.setenv("XDG_STATE_HOME", str(stage.folder / "state"))
    client = Client(Found(url, "test"))
    assert client.stats()["durability"] == "memory"
    client.close()
    monkeypatch.setenv("XDG_STATE_HOME", str(stage.folder / "elsewhere"))
    with pytest.raises(OperationalError, match="CHERVIL_TOKEN_FILE"):
        Client(Found(url, "test")).stats()


def test_the_token_file_is_the_users_alone_and_no_line_shows_it(stage):
    broker = start(stage, "--bind", "127.0.0.1:0")
    broker.wait_for("ready on")
    (path,) = (stage.folder / "state" / "chervil" / "tokens").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    broker.signal(signal.SIGTERM)
    assert broker.ended() == 0
    assert path.read_text().strip() not in "\n".join(broker.output)


def test_without_memory_it_keeps_a_journal_in_the_users_state_folder(stage):
    broker = start(stage, "--unix", str(stage.folder / "b.sock"))
    broker.wait_for("ready on")
    client = Client(Found(BrokerURL.parse(f"chervil+unix://{stage.folder}/b.sock"), "test"))
    client.publish([task()])
    assert client.stats()["durability"] == "always"
    client.close()
    broker.signal(signal.SIGTERM)
    assert broker.ended() == 0
    assert "unfinished tasks that are kept for the next start: 1" in broker.output[-1]
    assert list((stage.folder / "state").rglob("seg-*.log"))


@pytest.mark.parametrize("fsync", ["interval", "off"])
def test_what_may_be_lost_when_the_machine_stops_is_said_at_the_start(fsync, stage):
    broker = start(stage, "--unix", "b.sock", "--fsync", fsync)
    assert "what was confirmed last is lost if the machine stops" in broker.wait_for(f"--fsync {fsync}")


def test_a_folder_that_another_broker_uses_is_one_line_and_an_exit_code(stage):
    start(stage, "--unix", "b.sock").wait_for("ready on")
    other = start(stage, "--unix", "c.sock")
    assert other.ended() == 1
    (line,) = other.output
    assert "uses the data folder" in line


def test_a_folder_that_can_not_be_used_is_one_line_and_an_exit_code(stage):
    data = stage.folder / "data"
    data.mkdir(mode=0o700)
    (data / "lock").mkdir()
    broker = start(stage, "--unix", "b.sock", "--data", str(data))
    assert broker.ended() == 1
    (line,) = broker.output
    assert f"the data folder {data} can not be used" in line


def test_a_damaged_journal_is_one_line_that_says_what_to_type(stage):
    data = stage.folder / "data"
    for _ in range(2):
        broker = start(stage, "--unix", "b.sock", "--data", str(data))
        broker.wait_for("ready on")
        broker.signal(signal.SIGTERM)
        assert broker.ended() == 0
    first = min(data.glob("seg-*.log"))
    with first.open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    broker = start(stage, "--unix", "b.sock", "--data", str(data))
    assert broker.ended() == 2
    (line,) = broker.output
    assert f"chervil broker repair {data}" in line


def test_term_ends_it_in_order_and_says_what_is_gone(stage):
    broker = start(stage, "--unix", str(stage.folder / "b.sock"), "--memory")
    broker.wait_for("ready on")
    client = Client(Found(BrokerURL.parse(f"chervil+unix://{stage.folder}/b.sock"), "test"))
    client.publish([task()])
    broker.signal(signal.SIGTERM)
    assert broker.ended() == 0
    assert "unfinished tasks that were in memory and are gone: 1" in broker.output[-1]
    assert not (stage.folder / "b.sock").exists()
    client.close()


def test_log_lines_can_be_json(stage):
    broker = start(stage, "--unix", "b.sock", "--memory", "--log-format", "json")
    assert '"level": "INFO"' in broker.wait_for("ready on")


def test_an_address_in_use_is_one_line_and_an_exit_code(stage):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        broker = start(stage, "--bind", f"127.0.0.1:{port}")
        assert broker.ended() == 1
    assert len(broker.output) == 1
    assert f"127.0.0.1:{port} is in use" in broker.output[0]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--bind", "0.0.0.0:1"], "give --tls-cert and --tls-key; or --no-tls"),
        (["--max-memory", "plenty"], "512MB"),
        (["--body-limit", "1GB"], "--body-limit is 1 to"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_flags_are_usage_errors(flags, said, stage):
    broker = start(stage, *flags)
    assert broker.ended() == 2
    assert said in "\n".join(broker.output)
    assert "Traceback" not in "\n".join(broker.output)


def test_a_part_that_ends_with_an_error_ends_the_broker_with_1(stage):
    (stage.folder / "broken_broker.py").write_text(
        "import sys\nfrom chervil_broker import upkeep\n"
        "async def run(self): raise KeyError('planted')\nupkeep.Upkeep.run = run\n"
        "from chervil_broker.cli import broker\nbroker(sys.argv[1:])\n"
    )
    broker = stage.run("broker", ["broken_broker", "--unix", "b.sock", "--memory"], PYTHONPATH=".")
    assert broker.ended() == 1
    assert broker.output[-1].startswith("Error: a part of the broker ended with an error")


def test_what_has_to_last_and_ends_with_an_error_stops_the_broker(caplog):
    async def fail():
        raise RuntimeError("no more upkeep")

    async def last():
        await asyncio.sleep(0)

    async def run():
        for ends, stops in ((last(), False), (fail(), True)):
            stop = asyncio.Event()
            task = asyncio.create_task(ends, name="upkeep")
            await asyncio.wait([task])
            daemon._stop_if_it_failed(stop, task)
            assert stop.is_set() == stops

    asyncio.run(run())
    assert "the broker stops: upkeep ended with an error" in caplog.text
