"""The Dockerfile, as far as text goes: what it copies, runs and promises fits the project."""

import json
import re
import tomllib
from pathlib import Path

from chervil.address import BrokerURL
from chervil.statedir import state_dir
from tests.deploy.commandlines import DEPLOY, ROOT, mistakes

TEXT = (DEPLOY / "Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest of its line) of every one, lines that go on made one."""
    lines = TEXT.replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line and not line.startswith("#")]


def only(instruction: str) -> str:
    [found] = [rest for name, rest in instructions() if name == instruction]
    return found


def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for word in only("ENV").split())


def copied() -> set[str]:
    """What is copied from the project's folder."""
    lines = [
        rest.split() for name, rest in instructions() if name == "COPY" and not rest.startswith("--from")
    ]
    return {source for line in lines for source in line[:-1]}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_everything_that_the_package_is_made_of_is_copied_and_nothing_else():
    made_of = project()["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert copied() == {"pyproject.toml", *(name.removeprefix("/") for name in made_of)}
    assert all((ROOT / name).exists() for name in copied())


def test_the_ignore_file_lets_exactly_that_pass():
    lines = [line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] != "#"]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied()


def test_the_python_is_one_that_the_project_is_for():
    version = re.fullmatch(r"PYTHON=(3\.\d+)-slim", only("ARG"))
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in project()["project"]["classifiers"]


def test_what_is_run_is_there():
    start = json.loads(only("ENTRYPOINT")) + json.loads(only("CMD"))
    check = json.loads(only("HEALTHCHECK").partition(" CMD ")[2])
    for words in (start, check):
        assert words[0] == "chervil"
        assert mistakes(words[1:]) == []


def test_nothing_runs_as_root_and_the_number_is_fixed():
    after_user = [name for name, _ in instructions()][[name for name, _ in instructions()].index("USER") :]
    assert only("USER") == "chervil"
    assert "RUN" not in after_user
    assert "useradd --uid 2437 " in TEXT


def test_data_and_token_are_in_the_volume(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", environment()["XDG_STATE_HOME"])
    assert only("VOLUME") == environment()["CHERVIL_DATA"] == str(state_dir())
    [owned] = re.findall(r"install -d -o chervil -g chervil -m 0700 (.*)", TEXT)
    assert only("VOLUME") in owned


def test_the_health_check_asks_the_socket_on_which_the_broker_listens():
    url = BrokerURL.parse(environment()["CHERVIL_BROKER_URL"])
    command = json.loads(only("CMD"))
    assert command[command.index("--unix") + 1] == url.path
    [owned] = re.findall(r"install -d -o chervil -g chervil -m 0700 (.*)", TEXT)
    assert str(Path(str(url.path)).parent) in owned.split()


def test_the_port_that_the_image_exposes_is_one_on_which_it_listens_with_tls():
    command = json.loads(only("CMD"))
    assert command[command.index("--bind") + 1] == f"0.0.0.0:{only('EXPOSE')}"
    assert {"--tls-cert", "--tls-key"} < set(command)


def test_a_broker_that_reads_its_journal_is_not_taken_for_ill():
    assert "--start-period=15m" in only("HEALTHCHECK").split()


def test_every_broker_that_the_document_starts_in_a_container_has_the_health_checks_socket():
    text = (ROOT / "docs" / "deployment.md").read_text().replace("\\\n", " ")
    lines = [
        line for line in text.splitlines() if line.startswith("docker run ") and " chervil broker " in line
    ]
    assert lines
    url = BrokerURL.parse(environment()["CHERVIL_BROKER_URL"])
    for line in lines:
        assert f"--unix {url.path}" in line
        assert f":{only('VOLUME')} " in line


def test_stop_is_the_signal_that_ends_it_in_order():
    assert only("STOPSIGNAL") == "SIGTERM"
