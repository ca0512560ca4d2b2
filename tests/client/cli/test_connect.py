"""The app and the client of the verbs that talk to a broker: which one it is, and where it is found."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chervil.cli.common import Common
from chervil.cli.connect import app_for, open_client
from chervil.exceptions import AppNotFound
from chervil.protocol import Code
from chervil.protocol import messages as m
from tests.client.cli.conftest import Ran
from tests.client.fakes import FakeBroker, Peer
from tests.client.relay import Authority, Relay

APP = """
from chervil import Chervil
app = Chervil("{name}", broker="chervil://of-the-app:1", include={include})
"""


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for a module in the working folder, new for each test."""
    import sys

    name = f"connect_{abs(hash(request.node.nodeid))}"
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield name
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


def write_app(name: str, include: tuple[str, ...] = ()) -> None:
    Path(f"{name}.py").write_text(APP.format(name=name, include=include))


def common_for(app: str | None = None, broker: str | None = None) -> Common:
    return Common(app=app, broker=broker, workdir=Path.cwd())


def test_without_an_app_there_is_one_without_tasks_at_the_broker_that_is_meant() -> None:
    app = app_for(common_for(broker="chervil://flag:1"))
    assert list(app.tasks) == []
    assert (str(app.client.found.url), app.client.found.source) == ("chervil://flag:1", "flag --broker")


def test_the_apps_own_setting_says_which_broker(name: str) -> None:
    write_app(name)
    app = app_for(common_for(name))
    assert (app.main, str(app.client.found.url), app.client.found.source) == (
        name,
        "chervil://of-the-app:1",
        "app",
    )


def test_the_flag_wins_over_the_apps_setting(name: str) -> None:
    write_app(name)
    assert str(app_for(common_for(name, "chervil://flag:1")).client.found.url) == "chervil://flag:1"


def test_the_modules_that_the_app_includes_are_imported(name: str) -> None:
    write_app(name, (f"{name}_tasks",))
    Path(f"{name}_tasks.py").write_text(f"from {name} import app\n@app.task(name='t')\ndef t(): ...\n")
    assert list(app_for(common_for(name)).tasks) == ["t"]


def test_an_included_module_that_fails_is_named_and_its_error_kept(name: str) -> None:
    write_app(name, (f"{name}_tasks",))
    Path(f"{name}_tasks.py").write_text("1 / 0")
    with pytest.raises(
        AppNotFound, match=r"app\.conf\.include cannot be imported: division by zero"
    ) as caught:
        app_for(common_for(name))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_client_needs_no_app_where_something_else_says_the_broker(name: str) -> None:
    Path(f"{name}.py").write_text("raise RuntimeError")
    client = open_client(common_for(name, "chervil://flag:1"))
    assert client.found.source == "flag --broker"


def test_a_client_needs_no_app_where_the_environment_says_the_broker(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERVIL_BROKER_URL", "chervil://environment:1")
    Path(f"{name}.py").write_text("raise RuntimeError")
    assert str(open_client(common_for(name)).found.url) == "chervil://environment:1"


def test_a_client_asks_the_app_where_only_that_can_say_the_broker(name: str) -> None:
    write_app(name)
    assert str(open_client(common_for(name)).found.url) == "chervil://of-the-app:1"


def test_a_client_without_any_word_goes_to_the_default_broker() -> None:
    assert "CHERVIL_BROKER_URL" not in os.environ
    found = open_client(common_for()).found
    assert (str(found.url), found.source) == ("chervil://127.0.0.1:2437", "default")


@pytest.mark.parametrize(
    "line", [["why", "a"], ["list", "dead"], ["retry", "a"], ["revoke", "a"], ["forget", "a"], ["status"]]
)
def test_no_broker_is_69_with_its_url_who_said_so_and_what_to_type(
    chervil: Callable[..., Ran], line: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    began = time.monotonic()
    assert chervil(*line, "-b", f"chervil://token@{address}") == Ran(
        69,
        "",
        f"Error: cannot reach the broker at chervil://***@{address} (flag --broker): Connection refused; "
        f"start one: chervil broker --bind {address}\n",
    )
    assert time.monotonic() - began < 3, "and not the 4 s that connecting may take"


# TLS


@pytest.fixture
def relay(authority: Authority, tmp_path: Path) -> Iterator[Relay]:
    """TLS before a broker."""
    fake = FakeBroker(tmp_path / "fake.sock")
    relay = Relay(fake.url, authority.server_context())
    yield relay
    relay.close()
    fake.close()


def test_the_apps_files_are_used_even_where_the_flag_names_the_broker(
    name: str, relay: Relay, authority: Authority
) -> None:
    Path(f"{name}.py").write_text(
        "from chervil import Chervil\n"
        f"app = Chervil(broker='chervils://elsewhere', broker_use_ssl={{'ca_certs': {authority.files.ca!r}}})\n"
    )
    client = open_client(common_for(name, str(relay.url)))
    assert client.stats() == {"version": "0"}
    client.close()


def test_the_environments_files_are_used(
    chervil: Callable[..., Ran], relay: Relay, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert authority.files.ca is not None
    monkeypatch.setenv("CHERVIL_TLS_CA", authority.files.ca)
    assert chervil("-b", str(relay.url), "health") == Ran(0, f"ok: {relay.url}\n", "")


@pytest.mark.parametrize("line", [["health"], ["status"], ["call", "t"]])
def test_a_certificate_that_is_not_accepted_is_69_and_one_line(
    chervil: Callable[..., Ran], relay: Relay, line: list[str]
) -> None:
    ran = chervil("-b", str(relay.url), *line)
    assert (ran.code, ran.out) == (69, "")
    assert ran.err.startswith(f"Error: cannot reach the broker at {relay.url} (flag --broker): ")
    assert ran.err.endswith("; name the file of the CA that it is of with CHERVIL_TLS_CA\n")
    assert ran.err.count("\n") == 1


def test_a_setting_for_tls_and_an_address_without_it_are_a_usage_error(
    chervil: Callable[..., Ran], name: str
) -> None:
    Path(f"{name}.py").write_text("from chervil import Chervil\napp = Chervil('x', broker_use_ssl=True)\n")
    ran = chervil("-A", name, "status")
    assert ran.code == 2
    assert "write chervils://127.0.0.1:2437" in ran.err


# Tokens and vhosts


@pytest.fixture
def strict() -> Iterator[FakeBroker]:
    fake = FakeBroker(token="a/b@c%")
    yield fake
    fake.close()


def test_token_and_vhost_of_the_url_reach_the_broker(chervil: Callable[..., Ran], strict: FakeBroker) -> None:
    url = f"chervil://a%2Fb%40c%25@127.0.0.1:{strict.url.port}/sta%40ging"
    ran = chervil("-b", url, "health")
    assert ran.code == 0
    assert f"chervil://***@127.0.0.1:{strict.url.port}/sta%40ging" in ran.out
    assert (strict.hellos[0].token, strict.hellos[0].vhost) == ("a/b@c%", "sta@ging")


def test_a_vhost_that_is_not_granted_is_69_and_one_line(
    chervil: Callable[..., Ran], strict: FakeBroker
) -> None:
    def forbid(peer: Peer, message: m.Hello) -> bool:
        peer.send(m.Error(None, Code.FORBIDDEN, "the user web may not use the vhost shop"))
        return True

    strict.scripts[m.Hello] = forbid
    url = f"chervil://127.0.0.1:{strict.url.port}/shop"
    for verb in ("health", "status"):
        assert chervil("-b", url, verb) == Ran(
            69,
            "",
            f"Error: the broker at {url} (flag --broker) does not let us in: FORBIDDEN: "
            "the user web may not use the vhost shop\n",
        )


def test_several_addresses_are_tried_in_order(
    chervil: Callable[..., Ran], strict: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERVIL_TOKEN", "a/b@c%")
    urls = f"chervil+unix://{Path.cwd()}/none;{strict.url}"
    assert chervil("-b", urls, "health").code == 0
    Path("pyproject.toml").write_text(f'[tool.chervil]\nbroker = "{urls}"\n')
    assert chervil("health").code == 0
    monkeypatch.setenv("CHERVIL_BROKER_URL", urls)
    assert chervil("health").code == 0
