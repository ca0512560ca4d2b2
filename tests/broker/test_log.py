import logging

import pytest

from chervil_broker.log import set_up


@pytest.fixture
def logger():
    loggers = [logging.getLogger(name) for name in ("chervil.broker", "chervil.audit")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield loggers[0]
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


def test_lines_go_to_stderr_once_and_leave_the_root_logger_alone(logger, capsys):
    root_handlers = logging.getLogger().handlers[:]
    set_up("text", logging.INFO)
    set_up("text", logging.INFO)
    logger.info("ready")
    logger.debug("not this")
    assert capsys.readouterr().err.count("ready") == 1
    assert logging.getLogger().handlers == root_handlers


def test_the_level_is_kept(logger, capsys):
    set_up("json", logging.WARNING)
    logger.info("not this")
    logger.warning("this")
    assert '"message": "this"' in capsys.readouterr().err


def test_quiet_does_not_silence_the_audit_log(logger, capsys):
    set_up("text", logging.WARNING)
    logging.getLogger("chervil.audit").info("shop asks for PURGE")
    logging.getLogger("chervil.audit").debug("not this")
    said = capsys.readouterr().err
    assert "shop asks for PURGE" in said
    assert "not this" not in said
