"""`chervil report`: complete where all is well, complete where nothing is, and never a secret."""

import json
import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from chervil.cli.common import ENVIRONMENT
from chervil.version import __version__
from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]

#: What stands where a secret does, in every place that there is for one.
GEHEIM = "geheim-4711"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module of the working folder; its name, which no other test has used."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)

    def write(source: str) -> str:
        name = f"reported_{len(list(Path.cwd().iterdir()))}_{Path.cwd().parent.name}"
        Path(f"{name}.py").write_text(source)
        return name

    yield write
    for name in set(sys.modules) - known:
        if name.startswith("reported_"):
            del sys.modules[name]


def test_versions_and_platform_come_first(chervil: Run, broker: Broker) -> None:
    lines = chervil("report").out.splitlines()
    assert lines[:6] == [
        f"chervil   {__version__}",
        f"Python    {platform.python_version()} {platform.python_implementation()}",
        f"msgpack   {metadata.version('msgpack')}",
        f"uvloop    {metadata.version('uvloop')}",
        f"click     {metadata.version('click')}",
        f"platform  {platform.platform()}",
    ]


def test_a_library_that_is_missing_is_told(
    chervil: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    assert "uvloop    not installed" in chervil("report").out


def test_the_broker_tells_in_short_how_it_is(chervil: Run, broker: Broker) -> None:
    broker.report |= {
        "publishing": "closed",
        "tasks": {"QUEUED": 3, "DEAD": 1, "LEASED": 0},
        "queues": [{}, {}],
        "workers": [{}],
        "warnings": ["queue 'mail' has waited 12 s without a consumer"],
    }
    out = chervil("report").out
    assert (
        "broker chervil://127.0.0.1:2437 (from default)\n"
        "  Chervil 0.1.0, up 90 s, durability: memory, publishing: closed\n"
        "  1 MiB of 512 MiB used, queues: 2, workers: 1\n"
        "  tasks: 3 QUEUED, 1 DEAD\n"
        "  warning: queue 'mail' has waited 12 s without a consumer\n"
    ) in out


def test_a_broker_that_is_not_there_is_a_line_and_no_failure(chervil: Run) -> None:
    ran = chervil("-b", f"chervil://{GEHEIM}@127.0.0.1:9", "report")
    assert (ran.code, ran.err) == (0, "")
    assert "broker chervil://***@127.0.0.1:9 (from flag --broker)\n  cannot reach the broker at" in ran.out
    assert GEHEIM not in ran.out


def test_a_url_that_is_none_is_a_line_and_no_failure(chervil: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHERVIL_BROKER_URL", f"redis://:{GEHEIM}@h")
    ran = chervil("report")
    assert ran.code == 0
    assert "redis:// is not a Chervil broker" in ran.out
    assert "CHERVIL_BROKER_URL=***\n" in ran.out
    assert GEHEIM not in ran.out


@pytest.mark.parametrize(
    "url",
    [
        f"chervil://h:1/?token={GEHEIM}",
        f"chervil://h:1/v,chervil://{GEHEIM}@h:2",
        f"chervil://h:1/v chervil://{GEHEIM}@h:2",
        f"chervil://h:1/chervil://{GEHEIM}@h:2",
        f"chervil://a/{GEHEIM}@h:2",
        f"chervil://user:{GEHEIM}/x@h:2",
    ],
)
@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_url_with_a_mistake_is_told_without_showing_it(
    chervil: Run, monkeypatch: pytest.MonkeyPatch, url: str, how: list[str]
) -> None:
    monkeypatch.setenv("CHERVIL_BROKER_URL", url)
    ran = chervil("report", *how)
    assert (ran.code, ran.err) == (0, "")
    assert GEHEIM not in ran.out
    assert "; write " in ran.out
    ran = chervil("status")
    assert ran.code == 2
    assert GEHEIM not in ran.out + ran.err
    assert "write" in ran.err


def test_without_an_app_it_says_so(chervil: Run, broker: Broker) -> None:
    assert "\napp: none named (-A)\n" in chervil("report").out


def test_settings_of_the_app_are_those_that_differ_from_the_defaults(
    chervil: Run, broker: Broker, module: Callable[[str], str]
) -> None:
    name = module(
        "from chervil import Chervil\n"
        "app = Chervil('x', broker_pool_limit=3, task_default_queue='default', timezone='Europe/Berlin')\n"
        "@app.task\n"
        "def work(): ...\n"
    )
    out = chervil("-A", name, "report").out
    assert f"app {name}, tasks: 1\n  broker_pool_limit = 3\n  timezone = 'Europe/Berlin'\n\n" in out


def test_an_app_without_settings_says_so(chervil: Run, broker: Broker, module: Callable[[str], str]) -> None:
    name = module("from chervil import Chervil\napp = Chervil('x')\n")
    assert f"app {name}, tasks: 0\n  every setting has its default\n" in chervil("-A", name, "report").out


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_no_secret_is_shown(
    chervil: Run, module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    name = module(
        "import warnings; warnings.simplefilter('ignore')\n"
        "from chervil import Chervil\n"
        f"app = Chervil('x', broker='chervil://{GEHEIM}@127.0.0.1:9')\n"
        f"app.conf.update(payment_api_key='{GEHEIM}', database='postgres://u:{GEHEIM}@h/db',\n"
        f"    mail={{'host': 'h', 'password': '{GEHEIM}'}})\n"
    )
    monkeypatch.setenv("CHERVIL_TOKEN", GEHEIM)
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", GEHEIM)
    monkeypatch.setenv("CHERVIL_PASSWORT", GEHEIM)
    ran = chervil("-A", name, "report", *how)
    assert GEHEIM not in ran.out + ran.err
    for shown in ("payment_api_key", "postgres://***@h/db", "chervil://***@127.0.0.1:9", "CHERVIL_PASSWORT"):
        assert shown in ran.out


def test_an_app_that_cannot_be_loaded_is_a_line_with_its_secrets_masked(
    chervil: Run, broker: Broker, module: Callable[[str], str]
) -> None:
    name = module(f"raise RuntimeError('no database at postgres://u:{GEHEIM}@h/db')")
    ran = chervil("-A", name, "report")
    assert ran.code == 0
    assert (
        f"app {name}\n  {name} cannot be imported: RuntimeError: no database at postgres://***@h/db\n"
        in ran.out
    )
    assert "broker chervil://127.0.0.1:2437" in ran.out


def test_the_environment_is_what_chervil_reads_and_the_rest_by_name_only(
    chervil: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("CHERVIL_")]:
        monkeypatch.delenv(name)
    assert chervil("report").out.endswith("environment\n  nothing that Chervil reads\n")
    monkeypatch.setenv("CHERVIL_BROKER_URL", "chervil://h")
    monkeypatch.setenv("CHERVIL_TOKEN", GEHEIM)
    monkeypatch.setenv("CHERVIL_BROKER_PORT", "tcp://10.0.0.1:2437")
    assert chervil("report").out.endswith(
        "environment\n"
        "  CHERVIL_BROKER_URL=chervil://h\n"
        "  CHERVIL_TOKEN=***\n"
        "  not read: CHERVIL_BROKER_PORT\n"
    )


def test_nothing_in_it_steers_the_terminal(
    chervil: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERVIL_TLS_CA", "\x1b[2Jh")
    assert "CHERVIL_TLS_CA=\\x1b[2Jh" in chervil("report").out


def test_json_holds_the_same(chervil: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHERVIL_TOKEN", GEHEIM)
    found = json.loads(chervil("report", "--json").out)
    assert list(found) == ["versions", "platform", "app", "broker", "environment", "not_read"]
    assert found["versions"]["chervil"] == __version__
    assert found["app"] is None
    assert found["broker"]["url"] == "chervil://127.0.0.1:2437"
    assert found["broker"]["source"] == "default"
    assert found["broker"]["answer"]["version"] == "0.1.0"
    assert found["broker"]["answer"]["workers"] == 0
    assert found["environment"] == {"CHERVIL_TOKEN": "***"}
    assert set(found["environment"]) <= set(ENVIRONMENT)
