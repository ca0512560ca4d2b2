import pytest

from chervil.protocol import Code, RemoteProtocolError, Role
from chervil_broker.access import EVERYTHING, Access, Identity
from chervil_broker.tokens import hashed
from chervil_broker.users import Quotas, UsersFile, changing


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


def test_who_was_removed_or_has_another_token_has_to_come_again(access, path, tokens):
    shop = access.identify(tokens["shop"], (), same_user=False)
    boss = access.identify(tokens["boss@example.org"], (), same_user=False)
    local = access.identify("local-token", (), same_user=False)
    with changing(path) as users:
        users.rotate("shop")
    assert access.file.refresh()
    assert [access.renewed(who) for who in (shop, boss, local)] == [None, boss, local]
    with changing(path) as users:
        users.remove("boss@example.org")
    assert access.file.refresh()
    assert access.renewed(boss) is None


def test_who_may_do_more_or_elsewhere_goes_on_as_that(access, path, tokens):
    shop = access.identify(tokens["shop"], (), same_user=False)
    with changing(path) as users:
        users.set_vhost("mail", Quotas(), new=True)
        users.grant("shop", ["publish", "control"], ["mail"])
    assert access.file.refresh()
    now = access.renewed(shop)
    assert (now.name, now.by, now.roles) == ("shop", "token", {Role.ANY, Role.PUBLISH, Role.CONTROL})
    assert now.may_use("mail")
    assert not now.may_use("default")


@pytest.mark.parametrize(("before", "after"), [("publish", "control"), ("admin", "publish")])
def test_who_lost_a_role_has_to_come_again(access, path, before, after):
    with changing(path) as users:
        token = users.add("web", [before], ["default"])
    assert access.file.refresh()
    web = access.identify(token, (), same_user=False)
    with changing(path) as users:
        users.grant("web", [after], [])
    assert access.file.refresh()
    assert access.renewed(web) is None


def test_a_wrong_token_is_told_with_the_user_that_it_names(access, tokens):
    name, _, secret = tokens["shop"].rpartition(".")
    for claimed in (name, "n" * 64, "no.body"):
        code, message = refusal(access, f"{claimed}.{secret[::-1]}")
        assert code == Code.AUTH_FAILED
        assert message == (
            f"the token is no user's of this broker (it names {claimed}); a new one for that user: "
            f"chervil broker user rotate {claimed}"
        )


@pytest.mark.parametrize(
    "token", ["hunter2", "web.hunter2", "head.body.sig", "a\nb.{}", "\u202eweb.{}", "n" * 65 + ".{}", ".{}"]
)
def test_what_is_no_token_of_a_user_is_not_told(access, token):
    _, message = refusal(access, token.format("x" * 43))
    assert message.startswith("the token is no user's of this broker; set CHERVIL_TOKEN_FILE to the file")
    assert "as on other machines (chervil broker user add makes one)" in message


def test_long_names_in_a_certificate_are_cut(access):
    _, message = refusal(access, None, ["x" * 5_000] * 9)
    assert len(message) < 700
