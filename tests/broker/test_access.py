import pytest

from chervil.protocol import Code, RemoteProtocolError, Role
from chervil_broker.access import EVERYTHING, Access, Identity
from chervil_broker.tokens import hashed
from chervil_broker.users import UsersFile, changing


@pytest.fixture
def path(tmp_path):
    return tmp_path / "users.json"


@pytest.fixture
def tokens(path):
    with changing(path) as users:
        return {
            "shop": users.add("shop", ["publish"], ["default"]),
            "boss@example.org": users.add("boss@example.org", ["admin"], ["default"]),
        }


@pytest.fixture
def access(path, tokens):
    return Access(UsersFile(path), local_token_hash=hashed("local-token"))


def refusal(access, token=None, certificate=(), **given):
    with pytest.raises(RemoteProtocolError) as refused:
        access.identify(token, certificate, **({"same_user": False} | given))
    return refused.value.code, refused.value.message


def test_a_token_says_who_it_is(access, tokens):
    who = access.identify(tokens["shop"], (), same_user=False)
    assert (who.name, who.by) == ("shop", "token")
    assert who.roles == {Role.ANY, Role.PUBLISH}
    assert who.may_use("default")
    assert not who.may_use("mail")


def test_an_admin_has_all_roles_on_its_own_vhosts(access, tokens):
    who = access.identify(tokens["boss@example.org"], (), same_user=False)
    assert who.roles == EVERYTHING
    assert not who.may_use("mail")


def test_the_brokers_own_user_may_do_everything_everywhere(access):
    for who in (
        access.identify("local-token", (), same_user=False),
        access.identify(None, (), same_user=True),
        access.identify("a token of another broker", (), same_user=True),
    ):
        assert who.name == "local"
        assert who.roles == EVERYTHING
        assert who.may_use("anything")


def test_a_certificate_names_a_user(access):
    who = access.identify(None, ["host.example.org", "shop"], same_user=False)
    assert (who.name, who.by) == ("shop", "certificate")


def test_a_wrong_token_is_refused_whatever_the_certificate_says(access):
    code, message = refusal(access, "shop.wrong", ["shop"])
    assert code == Code.AUTH_FAILED
    assert "no user's of this broker" in message
    assert "CHERVIL_TOKEN_FILE" in message


def test_a_certificate_of_nobody_says_which_user_is_missing(access):
    code, message = refusal(access, None, ["worker9.example.org"])
    assert code == Code.AUTH_FAILED
    assert "chervil broker user add worker9.example.org" in message


def test_who_brings_nothing_is_asked_for_a_token(access):
    code, message = refusal(access)
    assert code == Code.AUTH_REQUIRED
    assert "CHERVIL_TOKEN_FILE" in message


def test_where_nobody_is_asked_anybody_may_do_everything(path):
    who = Access(UsersFile(path), local_token_hash=None, ask=False).identify("x", (), same_user=False)
    assert who == Identity("anybody", "--no-auth")
    assert who.roles == EVERYTHING


def test_without_a_local_token_only_users_are_known(path, tokens):
    access = Access(UsersFile(path), local_token_hash=None)
    assert refusal(access, "local-token")[0] == Code.AUTH_FAILED
    assert access.identify(tokens["shop"], (), same_user=False).name == "shop"


def test_whom_the_file_does_not_know_as_before_does_not_hold_any_more(access, path, tokens):
    shop = access.identify(tokens["shop"], (), same_user=False)
    boss = access.identify(tokens["boss@example.org"], (), same_user=False)
    local = access.identify("local-token", (), same_user=False)
    with changing(path) as users:
        users.rotate("shop")
    assert access.file.refresh()
    assert not access.still_holds(shop)
    assert access.still_holds(boss)
    assert access.still_holds(local)
    with changing(path) as users:
        users.remove("boss@example.org")
    assert access.file.refresh()
    assert not access.still_holds(boss)
