"""Tasks that do not behave: values and exceptions of their own kind, and what they do to their process."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil.protocol import Outcome, TaskOption, unpack_failure
from chervil_worker import packets
from chervil_worker.child import READY
from tests.worker.broker import DEADLINE, row
from tests.worker.conftest import no_descriptor_left
from tests.worker.rig import receive_answer

LIMIT = 1_000_000

#: One child, its end of the socket given as a number.
SCRIPT = """
import signal, socket, sys
from odd import app
from chervil_worker import child, log, options, terms
log.set_up("text", 20)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # as in every child
special = terms.special_terms(app.tasks, app.conf, options.WorkerOptions(concurrency=1))
sys.exit(child.Child(app, "me@here", special).serve(socket.socket(fileno=int(sys.argv[1]))))
"""

APP = '''
import asyncio, os, random, resource, signal, socket, sys, threading, time
from chervil import Chervil
from chervil.exceptions import Reject, SoftTimeLimitExceeded

app = Chervil("odd")

@app.task(name="add")
def add(x, y):
    return x + y

class Silent:
    def __repr__(self):
        raise RuntimeError("no repr")
    def __reduce__(self):
        return (Silent, (Silent(),))

class Trap(dict):
    """What it raises when it is written."""
    def __init__(self, error):
        super().__init__(a=1)
        self.error = error
    def items(self):
        raise self.error

def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value

VALUES = {
    "object": Silent, "exit": lambda: Trap(SystemExit(3)), "interrupt": lambda: Trap(KeyboardInterrupt()),
    "zero": lambda: Trap(ZeroDivisionError("no")), "deep": lambda: deep(100_000), "set": lambda: {1},
    "key": lambda: {Silent(): 1}, "large": lambda: "x" * 100_000,
}

@app.task(name="value")
def value(which):
    return VALUES[which]()

class Mute(Exception):
    def __str__(self):
        raise SystemExit(5)

class Numb(Exception):
    def __str__(self):
        return 7

class Armed(Exception):
    @property
    def args(self):
        raise KeyboardInterrupt
    __notes__ = property(args.fget)

class Group(BaseException):
    pass

def chained():
    error = None
    for number in range(20_000):
        after = ValueError(number)
        after.__cause__ = error
        error = after
    return error

def recursive():
    def again(n):
        return again(n + 1) + 1
    again(0)

ERRORS = {
    "mute": Mute, "numb": Numb, "armed": Armed, "base": lambda: Group("b"), "generator": GeneratorExit,
    "exit": lambda: SystemExit("bye"), "exit_code": lambda: SystemExit(3), "interrupt": KeyboardInterrupt,
    "stop": lambda: StopIteration(1), "args": lambda: ValueError(Silent(), {1}), "chained": chained,
    "recursive": recursive, "memory": lambda: MemoryError(), "group": lambda: ExceptionGroup("g", [Mute()]),
    "reject": lambda: Reject(Silent()),
}

@app.task(name="raise_")
def raise_(which):
    raise ERRORS[which]()

@app.task(name="raise_later")
async def raise_later(which):
    await asyncio.sleep(0)
    raise ERRORS[which]()

@app.task(name="eat")
def eat():
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, -1))
    return len(bytearray(4 << 30))

@app.task(name="eat_slowly")
def eat_slowly():
    """Until not even a small thing fits."""
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, -1))
    kept = []
    size = 1 << 26
    while True:
        try:
            kept.append(bytearray(size))
        except MemoryError:
            if size == 64:
                raise
            size //= 2

def own_socket():
    return int(sys.argv[1])

def replace_by_socket():
    ours, theirs = socket.socketpair()
    os.dup2(ours.fileno(), own_socket())
    globals().update(kept=(ours, theirs))  # nobody reads or closes them

CUTS = {
    "close": lambda: os.close(own_socket()),
    "range": lambda: os.closerange(0, 256),
    "null": lambda: os.dup2(os.open("/dev/null", os.O_RDWR), own_socket()),
    "socket": replace_by_socket,
}

@app.task(name="cut")
def cut(how):
    CUTS[how]()

ENDS = {
    "exit": lambda: os._exit(7),
    "abort": os.abort,
    "segfault": lambda: os.kill(os.getpid(), 11),
    "alarm": lambda: (signal.alarm(1), time.sleep(30)),
    "execv": lambda: os.execv("/bin/true", ["true"]),
}

@app.task(name="end")
def end(how):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ENDS[how]()

@app.task(name="litter")
def litter():
    os.chdir("/")
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGALRM, lambda *_: 1 / 0)
    signal.setitimer(signal.ITIMER_REAL, 30)
    random.seed(1)
    threading.Thread(target=threading.Event().wait, daemon=True).start()

@app.task(name="found")
def found():
    umask = os.umask(0)
    os.umask(umask)
    return [os.getcwd(), umask, signal.getitimer(signal.ITIMER_REAL)[0] > 0, threading.active_count()]

@app.task(name="slow", bind=True, soft_time_limit=0.05, time_limit=60)
def slow(self, seconds):
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        return ["caught", self.request.timelimit]
    return self.request.timelimit

@app.task(name="slow_later", soft_time_limit=0.05)
async def slow_later(seconds):
    try:
        await asyncio.sleep(seconds)
    except SoftTimeLimitExceeded:
        return "caught"

@app.task(name="slow_rude", soft_time_limit=0.05)
def slow_rude():
    time.sleep(30)

@app.task(name="limits", bind=True)
def limits(self):
    return self.request.timelimit
'''


class Alone:
    """A child in a process of its own; the test is its link."""

    def __init__(self, folder: Path) -> None:
        (folder / "odd.py").write_text(APP)
        # No pipe, which a long traceback would fill.
        self._log = (folder / "log").open("w+")
        self.sock, theirs = packets.pair()
        self.sock.settimeout(DEADLINE)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(theirs.fileno())],
                cwd=folder, pass_fds=[theirs.fileno()], stderr=self._log,
            )  # fmt: skip
        ready = packets.receive(self.sock)
        assert ready is not None
        assert ready.number == READY
        self._asked = 0

    def ask(self, name: str, *args: Any, **more: Any) -> None:
        self._asked += 1
        packets.send(
            self.sock, self._asked, packets.pack((row(self._asked, name, *args, **more), None, LIMIT))
        )

    def run(self, name: str, *args: Any, **more: Any) -> list[Any]:
        self.ask(name, *args, **more)
        answer = receive_answer(self.sock)
        assert answer is not None, self.said()
        assert answer.number == self._asked
        assert answer.payload is not None
        parts = packets.unpack(answer.payload)
        assert isinstance(parts, list)
        return parts

    def said(self) -> str:
        self.process.wait(DEADLINE)
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        self.sock.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(DEADLINE)
        self._log.close()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Alone]:
    alone = Alone(tmp_path)
    yield alone
    alone.close()


def test_values_that_cannot_be_written_are_failures_and_the_child_goes_on(child: Alone):
    for which in ("object", "exit", "interrupt", "zero", "deep", "set", "key"):
        outcome, codec, body, _ = child.run("value", which)
        assert (which, outcome, codec) == (which, Outcome.FAILURE, "failure")
        record = unpack_failure(body)
        assert (which, record.type) == (which, "chervil.exceptions.EncodeError")
    assert child.run("add", 1, 2)[2] == b"3"


@pytest.mark.parametrize("how", ["raise_", "raise_later"])
def test_exceptions_of_every_kind_are_failures_and_the_child_goes_on(child: Alone, how: str):
    kinds = {
        "mute": "odd.Mute", "numb": "odd.Numb", "armed": "odd.Armed", "base": "odd.Group",
        "generator": "builtins.GeneratorExit", "exit": "builtins.SystemExit", "exit_code": "builtins.SystemExit",
        "interrupt": "builtins.KeyboardInterrupt", "stop": "builtins.StopIteration", "args": "builtins.ValueError",
        "chained": "builtins.ValueError", "recursive": "builtins.RecursionError", "memory": "builtins.MemoryError",
        "group": "builtins.ExceptionGroup",
    }  # fmt: skip
    if how == "raise_later":
        kinds["stop"] = "builtins.RuntimeError"
    for which, kind in kinds.items():
        outcome, _, body, _ = child.run(how, which)
        assert (which, outcome) == (which, Outcome.FAILURE)
        assert (which, unpack_failure(body).type) == (which, kind), unpack_failure(body)
    assert child.run("add", 1, 2)[2] == b"3"


def test_rejection_without_words_is_one_all_the_same(child: Alone):
    outcome, _, body, _ = child.run("raise_", "reject")
    assert outcome == Outcome.REJECT
    assert "RuntimeError" in str(unpack_failure(body).message)


@pytest.mark.parametrize("task", ["eat", "eat_slowly"])
def test_memory_that_runs_out_is_a_failure_and_the_child_goes_on(child: Alone, task: str):
    outcome, _, body, _ = child.run(task)
    assert outcome == Outcome.FAILURE
    record = unpack_failure(body)
    assert record.type == "builtins.MemoryError"
    assert f"in {task}" in str(record.traceback)
    assert child.run("add", 1, 2)[2] == b"3"


def test_large_result_of_a_task_that_leaves_no_descriptor_arrives(child: Alone):
    with no_descriptor_left(child.process.pid):
        outcome, codec, body, _ = child.run("value", "large")
    assert (outcome, codec, len(body)) == (Outcome.SUCCESS, "json", 100_002)


def test_arguments_that_no_descriptor_is_left_for_go_back_unstarted_and_the_process_ends(child: Alone):
    with no_descriptor_left(child.process.pid):
        outcome, _, body, options = child.run("add", "x" * 50_000, "y")
        assert (outcome, options) == (Outcome.RELEASE, None)
        assert body == b"the process had no descriptor left for its arguments"
        assert packets.receive(child.sock) is None
    assert "no descriptor is left for a task's arguments" in child.said()
    assert child.process.returncode == 1


@pytest.mark.parametrize("how", ["close", "null", "socket"])
def test_task_that_takes_the_socket_ends_its_process_with_a_word(child: Alone, how: str):
    child.ask("cut", how)
    assert packets.receive(child.sock) is None
    said = child.said()
    assert child.process.returncode == 1
    assert "cut[00000000-0000-0000-0000-000000000001] closed or replaced the socket of its process" in said


def test_task_that_closes_everything_ends_its_process(child: Alone):
    child.ask("cut", "range")
    assert packets.receive(child.sock) is None
    child.process.wait(DEADLINE)
    assert child.process.returncode == 1


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("exit", 7),
        ("abort", -signal.SIGABRT),
        ("segfault", -signal.SIGSEGV),
        ("alarm", -signal.SIGALRM),
        ("execv", 0),
    ],
)
def test_task_that_ends_its_process_leaves_no_answer(child: Alone, how: str, code: int):
    child.ask("end", how)
    assert packets.receive(child.sock) is None
    child.process.wait(DEADLINE)
    assert child.process.returncode == code


def test_what_is_not_reset_between_tasks_is_as_documented(child: Alone):
    assert child.run("litter")[0] == Outcome.SUCCESS
    assert child.run("found")[2] == b'["/",63,true,2]'
    # A soft limit brings a handler and a timer of its own, and leaves no timer behind.
    assert child.run("slow", 30)[2] == b'["caught",[60.0,0.05]]'
    assert child.run("found")[2] == b'["/",63,false,2]'


def test_soft_limit_is_raised_in_the_task_and_is_a_failure_where_it_is_not_caught(child: Alone):
    assert child.run("slow", 30)[2] == b'["caught",[60.0,0.05]]'
    assert child.run("slow_later", 30)[2] == b'"caught"'
    outcome, _, body, _ = child.run("slow_rude")
    assert outcome == Outcome.FAILURE
    record = unpack_failure(body)
    assert (record.kind, record.type) == ("exception", "chervil.exceptions.SoftTimeLimitExceeded")
    assert "in slow_rude" in str(record.traceback)
    assert child.run("slow", 0)[2] == b"[60.0,0.05]"
    assert child.run("add", 1, 2)[2] == b"3"


def test_calls_limits_come_before_the_tasks(child: Alone):
    call = {TaskOption.TIME_LIMIT_MS: 5000, TaskOption.SOFT_TIME_LIMIT_MS: 4000}
    assert child.run("limits")[2] == b"[null,null]"
    assert child.run("limits", options=call)[2] == b"[5.0,4.0]"
    assert child.run("slow", 0.1, options=call)[2] == b"[5.0,4.0]"
    assert child.run("slow", 0.1, options={TaskOption.SOFT_TIME_LIMIT_MS: 0})[2] == b"[60.0,null]"
