import logging

import pytest

from chervil_broker.log import set_up


@pytest.fixture
def logger():
    logger = logging.getLogger("chervil.broker")
    before = logger.handlers[:], logger.level, logger.propagate
    yield logger
    logger.handlers[:], logger.level, logger.propagate = before


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
