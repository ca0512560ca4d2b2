"""The common options, before and after the verb, and where the app and the broker come from."""

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from chervil.cli import verbs
from chervil.cli.common import Common, common_of, did_you_mean
from tests.client.cli.conftest import Ran

Run = Callable[..., Ran]
seen: list[Common] = []


@click.command(short_help="Looks at the common options.")
@click.option("-o", "--own", default="")
@click.pass_context
def spy(ctx: click.Context, own: str) -> None:
    common_of(ctx).found()
    seen.append(common_of(ctx))


@pytest.fixture(autouse=True)
def spying(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    target = f"{spy.callback.__module__}:spy" if spy.callback else ""
    monkeypatch.setitem(verbs.VERBS, "spy", verbs.Verb(target, "Looks."))
    seen.clear()
    yield
    seen.clear()


@pytest.mark.parametrize(
    ("typed", "attribute", "value"),
    [
        (["-A", "proj"], "app", "proj"),
        (["--app", "proj:x"], "app", "proj:x"),
        (["-b", "chervil://h:1"], "broker", "chervil://h:1"),
        (["-C"], "color", False),
        (["--no-color"], "color", False),
        (["-q"], "quiet", True),
        (["-v"], "verbose", 1),
        (["-vv"], "verbose", 2),
        (["--json"], "json", True),
        (["--debug"], "debug", True),
        (["--workdir", "/"], "workdir", Path("/")),
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_option_is_understood_before_and_after_the_verb(
    chervil: Run, typed: list[str], attribute: str, value: object, after: bool
) -> None:
    line = ["spy", *typed] if after else [*typed, "spy"]
    assert chervil(*line).code == 0
    assert getattr(seen[0], attribute) == value


def test_what_stands_after_the_verb_wins(chervil: Run) -> None:
    chervil("-A", "one", "spy", "-A", "two")
    assert seen[0].app == "two"


def test_version_is_said_before_and_after_the_verb(chervil: Run) -> None:
    assert chervil("--version") == chervil("spy", "--version")
    assert chervil("--version").out.startswith("chervil ")
    assert seen == []


def test_app_comes_from_flag_then_environment_then_pyproject(
    chervil: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    chervil("spy")
    Path("pyproject.toml").write_text('[tool.chervil]\napp = "from_file"\n')
    chervil("spy")
    monkeypatch.setenv("CHERVIL_APP", "from_environment")
    chervil("spy")
    chervil("-A", "from_flag", "spy")
    assert [common.app for common in seen] == [None, "from_file", "from_environment", "from_flag"]


def test_broker_comes_from_flag_then_environment_then_file_then_app_then_default(
    chervil: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = Common()
    assert common.found().source == "default"
    assert common.found("chervil://app:1").source == "app"
    Path("pyproject.toml").write_text('[tool.chervil]\nbroker = "chervil://file:1"\n')
    found = common.found("chervil://app:1")
    assert found.url.host == "file"
    assert found.source == f"[tool.chervil] in {Path.cwd() / 'pyproject.toml'}"
    monkeypatch.setenv("CHERVIL_BROKER_URL", "chervil://environment:1")
    assert common.found("chervil://app:1").source == "environment CHERVIL_BROKER_URL"
    assert Common(broker="chervil://flag:1").found().source == "flag --broker"


def test_only_an_app_without_rival_is_asked_for_its_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Common().asks_the_app
    assert Common(app="tasks").asks_the_app
    assert not Common(app="tasks", broker="chervil://h:1").asks_the_app
    # Only the app may know the files.
    assert Common(app="tasks", broker="chervils://h:1").asks_the_app
    assert not Common(broker="chervils://h:1").asks_the_app
    monkeypatch.setenv("CHERVIL_BROKER_URL", "chervil://h:1")
    assert not Common(app="tasks").asks_the_app
    monkeypatch.setenv("CHERVIL_BROKER_URL", "chervil+unix:///s;chervils://h:1")
    assert Common(app="tasks").asks_the_app


def test_a_folder_that_may_not_be_looked_into_has_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", forbidden)
    assert Common().settings()[1] == {}


def test_config_names_another_file(chervil: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('[tool.chervil]\napp = "other"\n')
    Path("pyproject.toml").write_text('[tool.chervil]\napp = "here"\n')
    chervil("spy", "--config", str(other))
    chervil("--config", str(other), "spy")
    assert [common.app for common in seen] == ["other", "other"]


def test_pyproject_is_looked_for_in_the_workdir(chervil: Run, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.chervil]\napp = "up_there"\n')
    chervil("spy", "--workdir", str(tmp_path))
    assert seen[0].app == "up_there"


def test_workdir_must_exist(chervil: Run) -> None:
    ran = chervil("--workdir", "nowhere", "spy")
    assert ran.code == 2
    assert "nowhere" in ran.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[tool.chervil]\nap = "x"\n', "has no key 'ap'. Did you mean 'app'?"),
        ("[tool.chervil]\nresult_expires = 3\n", "belong in app.conf"),
        ("[tool.chervil]\napp = 3\n", "app must be a string, not int"),
        ("[tool.chervil\n", "is not valid TOML"),
    ],
)
def test_a_mistake_in_pyproject_is_named_with_the_file(chervil: Run, text: str, message: str) -> None:
    Path("pyproject.toml").write_text(text)
    ran = chervil("spy")
    assert ran.code == 2
    assert message in ran.err
    assert "pyproject.toml" in ran.err
    assert "Traceback" not in ran.err


def test_unreadable_config_is_named(tmp_path: Path) -> None:
    gone = Common(config=tmp_path / "gone.toml")
    with pytest.raises(click.UsageError, match=r"cannot read .*gone\.toml"):
        gone.settings()


def test_no_other_environment_name_is_read(chervil: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHERVIL_DEBUG", "CHERVIL_SPY_OWN", "CHERVIL_JSON", "CHERVIL_BROKER", "CHERVIL_BROKER_PORT"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:2437")
    chervil("spy")
    assert seen[0] == Common()


def test_no_color_in_the_environment_turns_colours_off(chervil: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    chervil("spy")
    assert not seen[0].color


def test_a_list_of_urls_in_pyproject_is_refused_without_showing_it(chervil: Run) -> None:
    Path("pyproject.toml").write_text('[tool.chervil]\nbroker = ["chervil://geheim@h"]\n')
    ran = chervil("spy")
    assert ran.code == 2
    assert 'broker must be a string, not list; several URLs have ";" between them' in ran.err
    assert "geheim" not in ran.err


def test_a_foreign_broker_url_is_refused_with_what_to_set(chervil: Run) -> None:
    ran = chervil("-b", "redis://localhost", "spy")
    assert ran.code == 2
    assert "redis:// is not a Chervil broker" in ran.err
    assert "type -b chervil://127.0.0.1:2437" in ran.err
    Path("pyproject.toml").write_text('[tool.chervil]\nbroker = "redis://localhost"\n')
    with pytest.raises(
        click.UsageError, match=r'set broker = "chervil://127.0.0.1:2437" in \[tool\.chervil\]'
    ):
        Common().found()
    assert "Traceback" not in ran.err


def test_did_you_mean_names_what_is_near_or_nothing() -> None:
    assert did_you_mean("wrker", ["worker", "broker"]) == " (Did you mean one of: 'broker', 'worker'?)"
    assert did_you_mean("zzz", ["worker"]) == ""
