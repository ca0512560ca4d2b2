"""The flags: that they reach the options, and that wrong ones are said in one line."""

import dataclasses
import logging
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from chervil_broker import cli
from chervil_broker.durability import JournalFailed
from chervil_broker.journal.lock import FolderInUse
from chervil_broker.journal.reader import Damage
from chervil_broker.listen import ListenError
from chervil_broker.options import BrokerOptions
from chervil_broker.users import UsersError


@pytest.fixture
def run(monkeypatch):
    """Runs the command with a daemon that only notes its options; gives (result, options, level)."""

    def run(*flags, obj=None, error=None):
        seen = []

        def daemon(options):
            seen.append(options)
            if error is not None:
                raise error

        levels = []
        monkeypatch.setattr(cli, "run", daemon)
        monkeypatch.setattr(cli, "set_up", lambda log_format, level: levels.append(level))
        result = CliRunner().invoke(cli.broker, flags, obj=obj)
        return result, *(seen or [None]), *(levels or [None])

    return run


def test_every_option_has_a_flag():
    flags = {param.name for param in cli.broker.params}
    assert flags == {field.name for field in dataclasses.fields(BrokerOptions)}


def test_flags_reach_the_options(run):
    given = {
        "bind": ("127.0.0.1:1", "[::1]:2"),
        "unix": "b.sock",
        "tls_cert": "c.pem",
        "tls_key": "k.pem",
        "tls_client_ca": "ca.pem",
        "no_auth": True,
        "users": "users.json",
        "max_connections": 7,
        "memory": True,
        "max_memory": 64 << 20,
        "body_limit": 2 << 20,
        "dedup_ids": 5,
        "log_format": "json",
        "loop": "asyncio",
    }
    flags = "--bind 127.0.0.1:1 --bind [::1]:2 --unix b.sock --tls-cert c.pem --tls-key k.pem --tls-client-ca ca.pem"
    more = "--no-auth --users users.json --max-connections 7 --memory --max-memory 64MB --body-limit 2m --dedup-ids 5"
    result, options, _ = run(*flags.split(), *more.split(), "--loop", "asyncio", "--log-format", "json")
    assert result.exit_code == 0
    assert options == BrokerOptions(**given)
    assert run("--no-tls")[1] == BrokerOptions(no_tls=True)


def test_without_flags_the_defaults_hold(run):
    assert run()[1] == BrokerOptions()


@pytest.mark.parametrize(
    ("common", "level"),
    [
        (None, logging.INFO),
        (SimpleNamespace(quiet=True, verbose=0), logging.WARNING),
        (SimpleNamespace(quiet=False, verbose=1), logging.DEBUG),
    ],
)
def test_the_common_options_set_the_level(run, common, level):
    assert run(obj=common)[2] == level


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ListenError("127.0.0.1:1 is in use"), 1),
        (JournalFailed("the journal in d can not be written"), 1),
        (FolderInUse("process 7 uses the data folder d"), 1),
        # What starting again does not mend: the unit of systemd is not to try.
        (UsersError("users.json is not a users file: it is empty"), 2),
        (Damage("seg-1.log", 64, "no frame begins here"), 2),
    ],
)
def test_what_is_wrong_outside_of_the_command_line_is_one_line_and_a_code(run, error, code):
    result, *_ = run("--data", "d", error=error)
    said = error.advice("d") if isinstance(error, Damage) else str(error)
    assert (result.exit_code, result.output) == (code, f"Error: {said}\n")


def test_a_wrong_value_is_a_usage_error(run):
    result, options, _ = run("--max-memory", "12")
    assert result.exit_code == 2
    assert options is None
    assert "at least 1MB" in result.output


def test_help_names_every_flag_and_says_what_it_does():
    text = CliRunner().invoke(cli.broker, ["--help"]).output
    for flag in (
        "--bind HOST:PORT",
        "--unix PATH",
        "--memory",
        "--max-memory SIZE",
        "--dedup-ids N",
        "--log-format",
        "--loop",
    ):
        assert flag in text
    assert "127.0.0.1:2437" in text
