"""Where a real worker looks for its broker, and as whom."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from chervil.protocol.messages import Error, Welcome
from chervil_worker.machine import CUT_OFF
from tests.worker.broker import ScriptedBroker, row
from tests.worker.conftest import StartWorker, stop, wait_until_said


def test_next_address_is_tried_when_one_fails(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    gone = f"chervil+unix://{tmp_path}/gone.sock"
    worker = start_worker("-c", "1", url=f"{gone};{broker.url}")
    broker.greet()
    wait_until_said(worker, f"broker {broker.url} (from flag --broker)")
    assert (
        f"cannot reach the broker at {gone} or {broker.url} (from flag --broker): {gone}: " in worker.said()
    )
    other = ScriptedBroker(str(tmp_path / "gone.sock"))
    try:
        broker.close()
        other.greet()
        other.deliver(row(1, "proj.add", 1, 2))
        other.until(lambda: other.rows)
        assert stop(worker, other) == 0
    finally:
        other.close()


def test_vhost_and_token_of_the_url_are_sent(start_worker: StartWorker):
    broker = ScriptedBroker()
    try:
        url = broker.url.replace("chervil://", "chervil://s3%40cret@") + "/sta%40ging"
        worker = start_worker("-c", "1", url=url)
        hello = broker.accept()
        assert (hello.token, hello.vhost) == ("s3@cret", "sta@ging")
        broker.welcome()
        assert stop(worker, broker) == 0
        assert "cret" not in worker.said()
    finally:
        broker.close()


def test_vhost_that_is_not_granted_ends_the_worker_with_one_line(
    start_worker: StartWorker, broker: ScriptedBroker
):
    worker = start_worker("-c", "1")
    broker.accept()
    broker.send(Error(None, "FORBIDDEN", "the user web may not use the vhost shop"))
    assert worker.wait() == CUT_OFF
    (line,) = worker.said().splitlines()
    assert "refused this worker: FORBIDDEN: the user web may not use the vhost shop" in line


def deny(broker: ScriptedBroker) -> None:
    """Greets a worker, and refuses its subscription and what follows that."""
    broker.accept()
    broker.connection.accept_frames_up_to(1 << 24)
    broker.send(
        Welcome(1, [], b"i" * 16, b"s" * 16, b"x" * 32, False, 10_000, {1: "memory"}),
        Error(1, "FORBIDDEN", "SUBSCRIBE needs the role consume"),
        Error(None, "FORBIDDEN", "CREDIT needs the role consume"),
    )
    broker.until_closed()


def deny_when_asked(broker: ScriptedBroker) -> None:
    """Greets a worker, and refuses its subscription once that has come."""
    broker.accept()
    broker.may_consume = False
    broker.connection.accept_frames_up_to(1 << 24)
    broker.send(Welcome(1, [], b"i" * 16, b"s" * 16, b"x" * 32, False, 10_000, {1: "memory"}))
    broker.until_closed()


@pytest.mark.parametrize("refuse", [deny, deny_when_asked])
def test_worker_that_may_not_consume_ends_with_one_line_and_was_never_ready(
    start_worker: StartWorker,
    broker: ScriptedBroker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refuse: Callable[[ScriptedBroker], None],
):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "manager"))
        worker = start_worker("-c", "1")
        refuse(broker)
        assert worker.wait() == CUT_OFF
        # What it sent is all here, and ends with this.
        manager.sendto(b"end", str(tmp_path / "manager"))
        told = list(iter(lambda: manager.recv(4096), b"end"))
    assert not any(b"READY=1" in each for each in told)
    (line,) = worker.said().splitlines()
    assert line.endswith("refused this worker: FORBIDDEN: SUBSCRIBE needs the role consume")


def test_worker_that_may_consume_no_longer_waits_between_its_attempts(
    start_worker: StartWorker, broker: ScriptedBroker
):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.deliver(row(1, "proj.add", 1, 2))
    broker.until(lambda: broker.rows)
    broker.hang_up()
    began = time.monotonic()
    for _ in range(5):
        deny(broker)
    # Five attempts in a row, the wait before each drawn from 50 to 100 ms, then twice that, to half a second.
    assert time.monotonic() - began > 0.05 + 0.1 + 0.2 + 0.25
    assert worker.said().count("cannot reach the broker") == 1
    broker.greet()
    assert stop(worker, broker) == 0


def test_refused_token_at_start_ends_the_worker(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.accept()
    broker.send(Error(None, "AUTH_FAILED", "the token is not this broker's; set CHERVIL_TOKEN_FILE"))
    assert worker.wait() == 1
    assert "CHERVIL_TOKEN_FILE" in worker.said()


def test_token_file_that_is_gone_later_is_waited_for(
    start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    token = tmp_path / "token"
    token.write_text("t")
    token.chmod(0o600)
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", str(token))
    broker = ScriptedBroker()
    try:
        worker = start_worker("-c", "1", url=broker.url)
        broker.greet()
        wait_until_said(worker, "durability")
        token.rename(tmp_path / "away")
        broker.hang_up()
        wait_until_said(worker, "cannot read CHERVIL_TOKEN_FILE")
        (tmp_path / "away").rename(token)
        broker.greet()
        assert stop(worker, broker) == 0
    finally:
        broker.close()


def test_token_in_the_state_folder_that_cannot_be_read_is_told_where_one_is_asked_for(
    start_worker: StartWorker, proj: Path
):
    broker = ScriptedBroker()
    try:
        path = proj / "chervil" / "tokens" / quote(broker.url.removeprefix("chervil://"), safe="")
        path.mkdir(parents=True)
        worker = start_worker("-c", "1", url=broker.url)
        broker.accept()
        broker.send(Error(None, "AUTH_REQUIRED", "this broker asks for a token"))
        assert worker.wait() == 1
        (line,) = worker.said().splitlines()
        assert line.endswith(
            f"the broker at {broker.url} asks for a token, and {path}, where one may be, cannot be read: "
            "Is a directory"
        )
    finally:
        broker.close()


def test_refused_token_later_is_tried_again(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.hang_up()
    broker.accept()
    broker.send(Error(None, "AUTH_FAILED", "not mine"))
    broker.until_closed()
    broker.greet()
    assert stop(worker, broker) == 0
