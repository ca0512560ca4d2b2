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


def test_vhosts_may_have_commas_between_them_as_roles(run, path):
    for name in ("shop", "mail", "news"):
        run("vhost", "add", name)
    result = run("user", "add", "web", "--role", "publish", "--vhost", "shop, mail", "--vhost", "news")
    assert load(path).users["web"].vhosts == {"shop", "mail", "news"}
    assert "vhosts: shop, mail, news" in result.stderr
    run("user", "set", "web", "--vhost", "shop,default")
    assert load(path).users["web"].vhosts == {"shop", "default"}


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
    assert load(path).vhosts["shop"] == Quotas(64 << 20, 9, 3)
    run("vhost", "set", "shop", "--max-memory", "none")
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


def test_setting_one_quota_keeps_the_others_and_none_takes_one_away(run, path):
    run("vhost", "add", "shop", "--max-memory", "64MB", "--max-tasks", "9", "--max-connections", "none")
    run("vhost", "set", "shop", "--max-connections", "3")
    assert load(path).vhosts["shop"] == Quotas(64 << 20, 9, 3)
    run("vhost", "set", "shop", "--max-tasks", "none", "--max-connections", "4")
    assert load(path).vhosts["shop"] == Quotas(64 << 20, None, 4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vhost", "set", "shop"], "say which quota: --max-memory, --max-tasks, --max-connections"),
        (["vhost", "set", "none", "--max-tasks", "1"], "there is no vhost 'none'; add it: "),
        (["vhost", "set", "shop", "--max-tasks", "0"], "'0' is not 1 or more; without a limit it is: none"),
        (["vhost", "add", "b", "--max-memory", "0.1"], "'0.1' is not 1 or more"),
        (["vhost", "set", "shop", "--max-tasks", "None"], "'None' is not a valid integer"),
        (["user", "set", "web"], "say what it may do from now on: --role, --vhost"),
        (["user", "set", "nobody", "--role", "admin"], "there is no user 'nobody'"),
        (["user", "set", "web", "--role", "root"], "roles are publish"),
        (["user", "set", "web", "--vhost", "shap"], "add it: chervil broker vhost add shap"),
    ],
)
def test_a_change_that_is_none_changes_nothing(run, path, words, said):
    run("vhost", "add", "shop", "--max-tasks", "9")
    run("user", "add", "web", "--role", "publish")
    before = path.read_text()
    assert said in run(*words, fails=True).output
    assert path.read_text() == before


def test_a_users_roles_and_vhosts_change_and_its_token_stays(run, path):
    token = run("user", "add", "web", "--role", "publish").stdout.strip()
    run("vhost", "add", "shop")
    said = run("user", "set", "web", "--role", "control,publish").stdout
    assert said == "user web changed: publish, control; vhosts: default\n"
    run("user", "set", "web", "--vhost", "shop", "--vhost", "default")
    found = load(path).of_token(token)
    assert found is not None
    assert found.roles == {Role.PUBLISH, Role.CONTROL}
    assert found.vhosts == {"default", "shop"}


def test_the_users_file_is_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CHERVIL_DATA", str(tmp_path / "data"))
    result = CliRunner().invoke(cli.broker, ["user", "add", "shop", "--role", "publish"])
    assert result.exit_code == 0, result.output
    assert load(tmp_path / "data" / "users.json").users.keys() == {"shop"}
