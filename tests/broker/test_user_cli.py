import json

import pytest
from click.testing import CliRunner

from chervil.protocol import Role
from chervil_broker import cli
from chervil_broker.users import Quotas, load


@pytest.fixture
def path(tmp_path):
    return tmp_path / "users.json"


@pytest.fixture
def run(path):
    def run(*words, fails=False):
        group, verb, *rest = words
        result = CliRunner().invoke(cli.broker, [group, verb, "--users", str(path), *rest])
        assert (result.exit_code != 0) == fails, result.output
        return result

    return run


def test_add_prints_the_token_alone_on_standard_output(run, path):
    result = run("user", "add", "shop", "--role", "publish,control", "--role", "consume")
    assert result.stdout.count("\n") == 1
    found = load(path).of_token(result.stdout.strip())
    assert found is not None
    assert found.name == "shop"
    assert found.roles == {Role.PUBLISH, Role.CONTROL, Role.CONSUME}
    assert found.vhosts == {"default"}
    assert "user shop added: publish, control, consume; vhosts: default" in result.stderr
    assert "CHERVIL_TOKEN_FILE" in result.stderr


def test_rotate_prints_a_new_token(run, path):
    first = run("user", "add", "shop", "--role", "publish").stdout.strip()
    second = run("user", "rotate", "shop").stdout.strip()
    assert load(path).of_token(first) is None
    assert load(path).of_token(second) is not None


def test_list_tells_no_token(run):
    token = run("user", "add", "shop", "--role", "admin").stdout.strip()
    text = run("user", "list").stdout
    assert text.splitlines() == ["USER  ROLES  VHOSTS", "shop  admin  default"]
    told = json.loads(run("user", "list", "--json").stdout)
    assert told == [{"name": "shop", "roles": ["admin"], "vhosts": ["default"]}]
    assert token.partition(".")[2] not in text


def test_without_users_list_says_how_to_add_one(run):
    assert "chervil broker user add NAME" in run("user", "list").stdout


def test_removed_users_are_gone(run, path):
    run("user", "add", "shop", "--role", "publish")
    assert run("user", "remove", "shop").stdout == "user shop removed\n"
    assert load(path).users == {}


def test_a_mistake_is_one_line_and_not_a_traceback(run):
    result = run("user", "remove", "nobody", fails=True)
    assert result.output == "Error: there is no user 'nobody'; list them: chervil broker user list\n"
    assert result.exit_code == 1
    assert "roles are publish" in run("user", "add", "shop", "--role", "root", fails=True).output


def test_vhosts_come_change_and_go(run, path):
    assert "its URL ends in /shop" in run("vhost", "add", "shop", "--max-memory", "64MB").stdout
    run("vhost", "set", "shop", "--max-tasks", "9", "--max-connections", "3")
    assert load(path).vhosts["shop"] == Quotas(None, 9, 3)
    assert run("vhost", "list").stdout.splitlines() == [
        "VHOST    MEMORY  TASKS  CONNECTIONS",
        "default  -       -      -",
        "shop     -       9      3",
    ]
    told = json.loads(run("vhost", "list", "--json").stdout)
    assert told[1] == {"name": "shop", "max_memory": None, "max_tasks": 9, "max_connections": 3}
    run("user", "add", "a", "--role", "publish", "--vhost", "shop")
    assert "granted to a" in run("vhost", "remove", "shop", fails=True).output
    run("user", "remove", "a")
    run("vhost", "remove", "shop")
    assert "shop" not in load(path).vhosts


def test_the_size_of_a_vhost_is_shown_as_people_write_it(run):
    run("vhost", "add", "shop", "--max-memory", "64MB")
    assert "64.0 MiB" in run("vhost", "list").stdout
    assert "is no size" in run("vhost", "add", "b", "--max-memory", "much", fails=True).output


def test_the_users_file_is_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CHERVIL_DATA", str(tmp_path / "data"))
    result = CliRunner().invoke(cli.broker, ["user", "add", "shop", "--role", "publish"])
    assert result.exit_code == 0, result.output
    assert load(tmp_path / "data" / "users.json").users.keys() == {"shop"}
