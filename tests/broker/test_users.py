import json
import stat
import threading

import pytest

from chervil.protocol import Role
from chervil_broker.users import (
    NAME_MAX,
    Quotas,
    Users,
    UsersError,
    UsersFile,
    changing,
    load,
    named_by,
    save,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "users.json"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def test_a_token_is_its_users_and_nobody_elses():
    users = Users()
    alice = users.add("alice", ["publish"], ["default"])
    bob = users.add("bob@example.org", ["consume", "control"], ["default"])
    assert users.of_token(alice) == users.users["alice"]
    found = users.of_token(bob)
    assert found is not None
    assert found.name == "bob@example.org"
    assert found.roles == {Role.CONSUME, Role.CONTROL}
    secret = alice.removeprefix("alice.")
    assert len(secret) == 43  # 256 bits
    for wrong in (secret, f"bob@example.org.{secret}", f"nobody.{secret}", alice[:-1], "", "."):
        assert users.of_token(wrong) is None


def test_of_a_token_only_a_hash_is_kept(path):
    with changing(path) as users:
        token = users.add("alice", ["publish"], ["default"])
    assert token.partition(".")[2] not in path.read_text()
    assert load(path).of_token(token) is not None


def test_the_file_is_its_owners_alone(path):
    with changing(path) as users:
        users.add("alice", ["publish"], ["default"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_was_saved_is_what_is_loaded(path):
    users = Users()
    users.set_vhost("shop", Quotas(1 << 28, None, 50), new=True)
    users.add("alice", ["admin"], ["shop", "default"])
    path.parent.mkdir()
    save(path, users)
    assert load(path) == users


def test_without_a_file_there_is_nobody_and_one_vhost(path):
    assert load(path) == Users({}, {"default": Quotas()})


def test_a_rotated_token_replaces_the_old_one():
    users = Users()
    old = users.add("alice", ["publish"], ["default"])
    new = users.rotate("alice")
    assert users.of_token(old) is None
    found = users.of_token(new)
    assert found is not None
    assert found.roles == {Role.PUBLISH}


def test_what_a_user_is_granted_changes_and_what_is_not_named_stays():
    users = Users()
    users.set_vhost("shop", Quotas(), new=True)
    token = users.add("alice", ["publish"], ["default"])
    assert users.grant("alice", ["control", "consume"], []).vhosts == {"default"}
    assert users.grant("alice", [], ["shop"]).roles == {Role.CONTROL, Role.CONSUME}
    assert users.of_token(token) == users.users["alice"]


@pytest.mark.parametrize(
    ("name", "roles", "vhosts", "message"),
    [
        ("bob", ["publish"], [], "there is no user 'bob'"),
        ("alice", ["root"], [], "roles are publish"),
        ("alice", [], ["shop"], "there is no vhost 'shop'; add it"),
    ],
)
def test_a_wrong_grant_changes_nothing(name, roles, vhosts, message):
    users = Users()
    users.add("alice", ["publish"], ["default"])
    before = dict(users.users)
    with pytest.raises(UsersError, match=message):
        users.grant(name, roles, vhosts)
    assert users.users == before


def test_a_token_says_whose_it_is_and_other_secrets_say_nothing():
    name = "n" * NAME_MAX
    assert named_by(Users().add(name, ["publish"], ["default"])) == name
    for other in (f"{name}n.{'x' * 43}", "web.hunter2", "x" * 43, f"a b.{'x' * 43}", ""):
        assert named_by(other) is None


def test_a_removed_user_is_nobody():
    users = Users()
    token = users.add("alice", ["publish"], ["default"])
    users.remove("alice")
    assert users.of_token(token) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda users: users.add("alice", ["publish"], ["default"]), "user 'alice' exists; .*rotate alice"),
        (lambda users: users.add("bob", ["root"], ["default"]), "roles are publish, consume, control, admin"),
        (lambda users: users.add("bob", [], ["default"]), "not none"),
        (lambda users: users.add("bob", ["publish"], ["sohp"]), "no vhost 'sohp'; add it"),
        (lambda users: users.add("a b", ["publish"], ["default"]), "a name is 1 to 64"),
        (lambda users: users.add("local", ["publish"], ["default"]), "the broker calls others so"),
        (lambda users: users.add("anybody", ["publish"], ["default"]), "the broker calls others so"),
        (lambda users: users.add("-b", ["publish"], ["default"]), "begins with a letter"),
        (lambda users: users.rotate("bob"), "no user 'bob'; list them"),
        (lambda users: users.remove("bob"), "no user 'bob'"),
        (lambda users: users.set_vhost("shop", Quotas(), new=True), "'shop' exists; change it"),
        (lambda users: users.set_vhost("shap", Quotas(), new=False), "no vhost 'shap'; add it"),
        (lambda users: users.set_vhost("a/b", Quotas(), new=True), "a name is"),
        (lambda users: users.remove_vhost("default"), "always there"),
        (lambda users: users.remove_vhost("shap"), "there are: default, shop"),
        (lambda users: users.remove_vhost("shop"), "granted to alice"),
    ],
)
def test_a_wrong_change_says_what_to_do_and_changes_nothing(path, change, message):
    with changing(path) as users:
        users.set_vhost("shop", Quotas(), new=True)
        users.add("alice", ["publish"], ["shop"])
    before = path.read_bytes()
    with pytest.raises(UsersError, match=message), changing(path) as users:
        change(users)
    assert path.read_bytes() == before


def test_a_vhost_that_nobody_has_can_go():
    users = Users()
    users.set_vhost("shop", Quotas(), new=True)
    users.set_vhost("shop", Quotas(max_tasks=5), new=False)
    assert users.vhosts["shop"].max_tasks == 5
    users.remove_vhost("shop")
    assert list(users.vhosts) == ["default"]


GOOD = {"version": 1, "users": {}, "vhosts": {}}
ALICE = {"token_sha256": "00" * 32, "roles": ["publish"], "vhosts": ["default"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a users file"),
        ("[]", "is not a users file"),
        ("{}", "'version' is missing"),
        (json.dumps(GOOD | {"version": 2}), "its version is 2, this release reads 1"),
        (json.dumps(GOOD | {"users": {"alice": {}}}), "'token_sha256' is missing"),
        (json.dumps(GOOD | {"users": {"a b": ALICE}}), "a name is"),
        (json.dumps(GOOD | {"users": {"alice": ALICE | {"token_sha256": "00"}}}), "not a SHA-256"),
        (json.dumps(GOOD | {"users": {"alice": ALICE | {"token_sha256": "xy"}}}), "hexadecimal"),
        (json.dumps(GOOD | {"users": {"alice": ALICE | {"roles": ["all"]}}}), "roles are"),
        (json.dumps(GOOD | {"users": {"alice": ALICE | {"roles": 1}}}), "is not a users file"),
        (json.dumps(GOOD | {"users": {"alice": ALICE | {"vhosts": "abc"}}}), "vhosts is a list of names"),
        ("[" * 200_000, "is not a users file"),
        (json.dumps(GOOD | {"vhosts": {"x y": {}}}), "a name is"),
        (json.dumps(GOOD | {"vhosts": {"shop": {"max_memory": 0}}}), "max_memory: 0; known are"),
        (json.dumps(GOOD | {"vhosts": {"shop": {"max_love": 1}}}), "max_love"),
        (
            json.dumps(GOOD | {"vhosts": {str(n): {} for n in range(300)}}),
            "more than 10000 users or 256 vhosts",
        ),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_by_name(path, text, message):
    write(path, text)
    with pytest.raises(UsersError, match=message) as refused:
        load(path)
    assert str(path) in str(refused.value)


def test_a_file_that_others_may_write_is_refused(path):
    write(path, json.dumps(GOOD))
    path.chmod(0o620)
    with pytest.raises(UsersError, match="chmod 600"):
        load(path)


def test_a_file_that_cannot_be_read_or_written_is_an_error(tmp_path):
    with pytest.raises(UsersError, match="cannot read"):
        load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsersError, match="cannot write"), changing(tmp_path / "file" / "users.json"):
        pytest.fail("it began")
    with pytest.raises(UsersError, match="cannot write"):
        save(tmp_path / "nowhere" / ".." / "file" / "users.json", Users())


def test_changes_at_the_same_time_are_all_kept(path):
    def add(number):
        with changing(path) as users:
            users.add(f"user{number}", ["publish"], ["default"])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(load(path).users) == [f"user{number}" for number in range(8)]


def test_a_running_broker_sees_changes(path):
    file = UsersFile(path)
    assert not file.refresh()
    with changing(path) as users:
        users.add("alice", ["publish"], ["default"])
    assert file.refresh()
    assert list(file.users.users) == ["alice"]
    assert not file.refresh()
    path.unlink()
    assert file.refresh()
    assert not file.users.users


def test_a_wrong_change_is_told_once_and_leaves_what_was(path):
    with changing(path) as users:
        users.add("alice", ["publish"], ["default"])
    file = UsersFile(path)
    write(path.with_name("new"), "nonsense")
    path.with_name("new").replace(path)
    with pytest.raises(UsersError):
        file.refresh()
    assert not file.refresh()
    assert list(file.users.users) == ["alice"]


def test_there_are_no_more_users_and_vhosts_than_the_limits(monkeypatch):
    monkeypatch.setattr("chervil_broker.users.USERS_MAX", 1)
    monkeypatch.setattr("chervil_broker.users.VHOSTS_MAX", 2)
    users = Users()
    users.add("a", ["publish"], ["default"])
    with pytest.raises(UsersError, match="1 users already"):
        users.add("b", ["publish"], ["default"])
    users.set_vhost("one", Quotas(), new=True)
    with pytest.raises(UsersError, match="2 vhosts already"):
        users.set_vhost("two", Quotas(), new=True)
