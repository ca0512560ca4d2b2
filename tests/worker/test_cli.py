from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from chervil.cli.common import Common
from chervil_worker import cli
from chervil_worker.options import WorkerOptions


class Ran:
    options: WorkerOptions | None = None
    code = 0


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    seen = Ran()

    def run(options: WorkerOptions, common: Common) -> int:
        seen.options = options
        return seen.code

    monkeypatch.setattr(cli, "run", run)
    return seen


def invoke(*arguments: str, common: Common | None = None) -> Result:
    return CliRunner().invoke(cli.worker, arguments, obj=common or Common(app="proj"), standalone_mode=False)


def test_flags_become_options(ran: Ran):
    invoke(*["-c", "3", "-Q", "a,b,a", "-n", "me@%n", "-l", "info", "-I", "m1,m2", "--log-format", "json"])
    assert ran.options == WorkerOptions(3, ("a", "b"), "me@%n", "INFO", ("m1", "m2"), "json")


def test_time_limits_are_seconds(ran: Ran):
    invoke("--time-limit", "10", "--soft-time-limit", "2.5")
    assert ran.options == WorkerOptions(time_limit=10.0, soft_time_limit=2.5)


def test_nothing_given_means_the_defaults(ran: Ran):
    invoke()
    assert ran.options == WorkerOptions()


def test_exit_code_is_passed_on(ran: Ran):
    ran.code = 2
    assert invoke().return_value == 2


@pytest.mark.parametrize(("verbose", "level"), [(0, "WARNING"), (1, "INFO"), (2, "DEBUG")])
def test_v_is_a_log_level_too(ran: Ran, verbose: int, level: str):
    invoke(common=Common(app="proj", workdir=Path(), verbose=verbose))
    assert ran.options is not None
    assert ran.options.loglevel == level


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["-c", "0"], "--concurrency is 1 to"), (["-Q", " , "], "at least one name"), (["-l", "loud"], "loud")],
)
def test_mistakes_are_usage_errors(ran: Ran, arguments: list[str], message: str):
    result = invoke(*arguments)
    assert isinstance(result.exception, click.UsageError)
    assert message in str(result.exception.format_message())
    assert ran.options is None


def test_missing_app_is_asked_for(ran: Ran):
    result = invoke(common=Common())
    assert isinstance(result.exception, click.UsageError)
    assert "-A" in result.exception.message


def test_help_names_every_option(ran: Ran):
    text = CliRunner().invoke(cli.worker, ["--help"]).output
    for flag in ("-c, --concurrency", "-Q, --queues", "-n, --hostname", "-l, --loglevel", "--log-format"):
        assert flag in text
