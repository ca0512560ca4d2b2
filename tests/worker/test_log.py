import json
import logging

import pytest

from chervil_worker import log


@pytest.fixture(autouse=True)
def restore():
    before = [
        (logger, logger.level, logger.propagate, logger.handlers[:]) for logger in (log.worker, log.task)
    ]
    yield
    for logger, level, propagate, handlers in before:
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers


def test_lines_go_to_stderr_once_and_the_root_logger_is_left_alone(capsys: pytest.CaptureFixture[str]):
    root = logging.getLogger().handlers[:]
    log.set_up("text", logging.INFO)
    log.set_up("text", logging.INFO)
    log.task.info("hello")
    log.worker.debug("too fine")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "chervil.task  hello" in said
    assert logging.getLogger().handlers == root


def test_json_lines_carry_what_a_line_is_about(capsys: pytest.CaptureFixture[str]):
    log.set_up("json", logging.WARNING)
    log.task.error("no", extra={"task_name": "t", "task_id": "7"})
    line = json.loads(capsys.readouterr().err)
    assert (line["message"], line["task_name"], line["task_id"]) == ("no", "t", "7")


def test_lines_of_code_without_io_are_written_with_what_they_are_about(capsys: pytest.CaptureFixture[str]):
    log.set_up("json", logging.WARNING)
    log.write([log.Line(logging.ERROR, "100 %", "t", "7"), log.Line(logging.INFO, "too fine")])
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["message"], said["task_name"], said["task_id"]) == ("100 %", "t", "7")
