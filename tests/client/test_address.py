import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from chervil import address
from chervil.address import DEFAULT_URL, FAILED_SECONDS, Addresses, BrokerURL, Found, find_broker
from chervil.tls_files import TLSFiles


def test_host_port_token_and_vhost_are_read():
    url = BrokerURL.parse("chervil://s%40cret@example.org:99/shop")
    assert (url.host, url.port, url.token, url.vhost) == ("example.org", 99, "s@cret", "shop")


@pytest.mark.parametrize("show", [str, repr, lambda url: url.redacted])
def test_the_token_is_never_shown(show):
    assert "geheim" not in show(BrokerURL.parse("chervil://geheim@h:1"))


def test_the_port_defaults():
    assert str(BrokerURL.parse("chervil://h")) == "chervil://h:2437"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("chervil://localhost", "127.0.0.1:2437"),
        ("chervil://token@127.0.0.1:2437/v", "127.0.0.1:2437"),
        ("chervil://[::1]:5", "127.0.0.1:5"),
        ("chervil://[fe80::1]:5", "[fe80::1]:5"),
        ("chervil+unix:///a/b/../c", "/a/c"),
    ],
)
def test_the_key_identifies_the_address(text, key):
    assert BrokerURL.parse(text).key == key


@pytest.mark.parametrize(
    "text",
    [
        "chervil://h:1/v%40w",
        "chervil+unix:///a%20b",
        "chervil+unix:///a%3Fb%23%25",
        "chervil+unix:///a?virtual_host=x%40y",
        "chervil://[fe80::1]:5",
        "chervil://[fe80::1%25eth0]:5",
    ],
)
def test_text_parses_back(text):
    assert BrokerURL.parse(str(BrokerURL.parse(text))) == BrokerURL.parse(text)


@pytest.mark.parametrize(
    ("url", "example"),
    [
        ("cherivls://geheim@h", "chervils://HOST:PORT"),
        ("Chevil://geheim@h", "chervil://HOST:PORT"),
        ("chervil+unx:///geheim", "chervil+unix:///ABSOLUTE/PATH"),
        ("https://geheim@h", "chervils://HOST:PORT"),
        ("http://geheim@h", "chervil://HOST:PORT"),
    ],
)
def test_a_slip_in_the_scheme_gets_the_scheme_that_was_meant(url, example):
    with pytest.raises(ValueError, match=r"://\? For example ") as caught:
        BrokerURL.parse(url)
    scheme, meant = url.partition("://")[0].lower(), example.partition("://")[0]
    assert str(caught.value) == (
        f"{scheme}:// is not how a broker URL begins; did you mean {meant}://? For example "
        f'set broker_url = "{example}"'
    )


@pytest.mark.parametrize("scheme", ["redis", "amqp", "pyamqp"])
def test_foreign_schemes_get_the_line_to_set(scheme):
    with pytest.raises(ValueError, match=f'broker_url = "{DEFAULT_URL}"'):
        BrokerURL.parse(f"{scheme}://h")


@pytest.mark.parametrize(
    "text", ["h:1", "chervil://", "chervil://h:0", "chervil://h:x", "chervil://h?a=b", "chervil://u:p@h"]
)
def test_other_mistakes_get_an_example(text):
    with pytest.raises(ValueError, match="write"):
        BrokerURL.parse(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("geheim@h", "this is not a broker URL; write it as chervil://HOST:PORT"),
        ("geheim@chervil://h", "this is not a broker URL"),
        ("chervil://geheim@h:x", "its host or its port is none; write chervil://HOST:PORT"),
        ("chervil://geheim@:1", "names no host or no port; write chervil://HOST:PORT"),
        ("chervil://geheim@h:0", "names no host or no port"),
        ("chervil://ho(st)/geheim", "names no host or no port"),
        ("chervil://user:geheim/x@h", "its host or its port is none"),
        ("chervil://h:1/geh@eheim", "write chervil://HOST:PORT/VHOST"),
        ("chervil://ge/heim@h:1", "or %2F for a / in the token"),
        ("chervil://h:1/geheim/x", "no name of a vhost"),
        ("chervil://h:1/geheim;", "no name of a vhost"),
        ("chervil://h:1/-geheim", "no name of a vhost"),
        ("chervil://h:1/%20geheim", "no name of a vhost"),
        ("chervil://h:1/?token=geheim", "has no '?' or '#' part; write chervil://HOST:PORT"),
        ("chervil://h:1/?", "has no '?' or '#' part"),
        ("chervil://h:1/v#geheim", "has no '?' or '#' part"),
        (
            "chervil://h:1/geheim,chervil://h:2",
            "write chervil://HOST:PORT;chervil://HOST:PORT with a semicolon",
        ),
        ("chervils://geheim@h:1,h:2", "write chervils://HOST:PORT;chervils://HOST:PORT with a semicolon"),
        ("chervil://h:1/chervil://geheim@h:2", "with a semicolon between them"),
        ("chervil://h:1 geheim", "write %20 for a blank"),
        ("chervil://gehe\nim@h:1", "an unprintable character"),
        ("chervil://gehe\udc80im@h:1", "an unprintable character"),
        ("chervil://geheim%@h:1", "write %20 for a blank, and %25 for a % itself"),
        ("chervil://geheim%ff@h:1", "is not UTF-8"),
        ("chervil://geheim%0A@h:1", "in the URL's token"),
        ("chervil://geheim%20x@h:1", "in the URL's token"),
        ("chervil://geheim:x@h:1", "write chervil://TOKEN@HOST:PORT"),
        ("chervil+unix://geheim", "with three slashes"),
        ("chervil+unix:///s#geheim", "%23 for a # in it"),
        ("chervil+unix:///s%00geheim", "no absolute path"),
        ("chervil+unix:///s?geheim", r"write chervil+unix:///ABSOLUTE/PATH?virtual_host=NAME"),
        ("chervil+unix:///s?virtual_host=geheim&x", "the name of a vhost"),
        ("chervil+unix:///s?virtual_host=", "the name of a vhost"),
        ("chervil+unix:///s?token=geheim", "the name of a vhost"),
    ],
)
def test_a_mistake_is_told_with_what_to_write_and_without_the_text(text, told):
    with pytest.raises(ValueError) as caught:
        BrokerURL.parse(text)
    assert told in str(caught.value)
    assert "geheim" not in str(caught.value)
    # Not in what --debug shows either.
    assert caught.value.__cause__ is None


def test_which_of_several_urls_has_a_mistake_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"^URL 2 of 3: .*\(from app\)$") as caught:
        find_broker(None, ["chervil://h", "chervil://h/geheim@h", "chervil://h2"], tmp_path)
    assert "geheim" not in str(caught.value)


def test_a_token_and_a_vhost_may_hold_anything_that_brokers_give_them():
    url = BrokerURL.parse("chervil://a%40b.c%2Fd%2C%25e-_~@h:1/x%40y.z_-")
    assert (url.token, url.vhost) == ("a@b.c/d,%e-_~", "x@y.z_-")
    assert str(url) == "chervil://***@h:1/x%40y.z_-"
    # A user's name may hold an @ and stands before the token's dot.
    assert BrokerURL.parse("chervil://a@b.c@h:1").token == "a@b.c"
    # As AMQP's URLs have it.
    assert BrokerURL.parse("chervil://h:1//").vhost is None


def test_a_unix_socket_wants_an_absolute_path():
    with pytest.raises(ValueError, match="three slashes"):
        BrokerURL.parse("chervil+unix://a/b")


def test_a_unix_socket_may_have_a_vhost():
    url = BrokerURL.parse("chervil+unix:///run/b.sock?virtual_host=shop")
    assert (url.path, url.vhost, url.key) == ("/run/b.sock", "shop", "/run/b.sock")


def test_flag_then_environment_then_app_then_default(tmp_path, monkeypatch):
    assert find_broker(None, None, tmp_path).source == "default"
    assert find_broker(None, "chervil://app", tmp_path).source == "app"
    monkeypatch.setenv("CHERVIL_BROKER_URL", "chervil://env")
    assert find_broker(None, "chervil://app", tmp_path).url.host == "env"
    found = find_broker("chervil://flag", "chervil://app", tmp_path)
    assert (found.url.host, found.source) == ("flag", "flag --broker")


def test_a_wrong_url_is_blamed_on_its_source(tmp_path):
    with pytest.raises(ValueError, match="from flag --broker"):
        find_broker("nonsense", None, tmp_path)


@pytest.mark.parametrize("text", ["redis://h", "nonsense"])
def test_a_wrong_url_is_corrected_where_it_was_given(tmp_path, monkeypatch, text):
    with pytest.raises(ValueError, match=f"type -b {DEFAULT_URL} "):
        find_broker(text, None, tmp_path)
    with pytest.raises(ValueError, match=f'set broker_url = "{DEFAULT_URL}" '):
        find_broker(None, text, tmp_path)
    monkeypatch.setenv("CHERVIL_BROKER_URL", text)
    with pytest.raises(ValueError, match=f"set CHERVIL_BROKER_URL={DEFAULT_URL} "):
        find_broker(None, None, tmp_path)


def test_a_running_dev_of_the_folder_is_found(tmp_path):
    folder = tmp_path / ".chervil"
    folder.mkdir()
    path = folder / "broker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        found = find_broker(None, None, tmp_path)
        assert (found.url.path, found.source) == (str(path), "running dev of this folder")
    # Its socket file stays behind when it is killed.
    assert path.exists()
    assert find_broker(None, None, tmp_path).source == "default"


def test_a_dev_of_another_user_is_passed_over_unless_it_is_named(tmp_path, monkeypatch, caplog):
    (tmp_path / ".chervil").mkdir()
    path = tmp_path / ".chervil" / "broker.sock"
    real = Path.lstat
    monkeypatch.setattr(Path, "lstat", lambda path: SimpleNamespace(st_mode=real(path).st_mode, st_uid=4711))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert find_broker(None, None, tmp_path).source == "default"
    assert caplog.messages[0].endswith(f"if that is the broker you mean, type -b chervil+unix://{path}")
    assert find_broker(f"chervil+unix://{path}", None, tmp_path).url.path == str(path)


def test_a_dev_path_too_long_for_a_socket_is_no_error(tmp_path: Path):
    assert find_broker(None, None, tmp_path / ("x" * 200)).source == "default"


def test_a_folder_that_may_not_be_looked_into_has_no_dev(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "lstat", forbidden)
    assert find_broker(None, None, tmp_path).source == "default"


# Several addresses


def texts(found):
    return [str(url) for url in found.urls]


TWO = ["chervil://a:1", "chervil://b:2"]


@pytest.mark.parametrize("urls", [TWO, tuple(TWO), ";".join(TWO), " ; ".join([*TWO, ""]), [";".join(TWO)]])
def test_a_list_or_a_text_with_semicolons_is_several_addresses(tmp_path, urls):
    found = find_broker(None, urls, tmp_path)
    assert texts(found) == TWO
    assert found.redacted == "chervil://a:1 or chervil://b:2"


def test_flag_and_environment_may_name_several_too(tmp_path, monkeypatch):
    assert texts(find_broker(";".join(TWO), None, tmp_path)) == TWO
    monkeypatch.setenv("CHERVIL_BROKER_URL", ";".join(TWO))
    assert texts(find_broker(None, None, tmp_path)) == TWO


def test_one_wrong_address_among_several_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"redis:// is not a Chervil broker.*\(from app\)"):
        find_broker(None, ["chervil://a", "redis://b"], tmp_path)


def test_a_list_without_an_address_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"names no broker; .*\(from flag --broker\)"):
        find_broker(" ; ", None, tmp_path)


FIRST, SECOND, THIRD = (BrokerURL.parse(f"chervil://h:{port}") for port in (1, 2, 3))


@pytest.fixture
def clock(monkeypatch):
    """What time it is, in seconds."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(address, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def addresses(clock):
    return Addresses(Found(FIRST, "app", (SECOND, THIRD)))


def test_the_address_that_failed_gives_way_to_the_next(addresses, clock):
    addresses.failed(SECOND)
    assert addresses.first is FIRST
    clock.now += 1
    addresses.failed(FIRST)
    addresses.failed(FIRST)  # by another thread
    assert addresses.in_order() == (THIRD, SECOND, FIRST)
    clock.now += 1
    addresses.failed(THIRD)
    assert addresses.in_order() == (SECOND, FIRST, THIRD), "the one that failed longest ago first"


def test_a_new_connection_begins_with_the_first_address_again_once_its_failure_is_old(addresses, clock):
    addresses.failed(FIRST)
    addresses.opened(SECOND)
    clock.now += FAILED_SECONDS - 0.1
    assert addresses.first is SECOND
    clock.now += 0.2
    assert addresses.in_order() == (FIRST, SECOND, THIRD)


def test_an_address_that_works_again_has_not_failed(addresses, clock):
    addresses.failed(FIRST)
    addresses.opened(FIRST)
    assert addresses.in_order() == (FIRST, SECOND, THIRD)


def test_where_a_connection_broke_the_next_one_is_tried_first(addresses, clock):
    """What was under way is known there only."""
    addresses.failed(FIRST)
    addresses.opened(SECOND)
    clock.now += 2 * FAILED_SECONDS
    addresses.broke(SECOND)
    assert addresses.in_order() == (SECOND, FIRST, THIRD)
    clock.now += 1
    addresses.failed(SECOND)
    assert addresses.in_order() == (FIRST, THIRD, SECOND)
    addresses.opened(FIRST)
    addresses.broke(THIRD)  # one that was left over from before
    assert addresses.first is FIRST


def test_a_break_of_long_ago_says_nothing(addresses, clock):
    addresses.opened(SECOND)
    addresses.broke(SECOND)
    clock.now += FAILED_SECONDS + 0.1
    assert addresses.first is FIRST


def test_a_single_address_is_always_first(clock):
    addresses = Addresses(Found(FIRST, "app"))
    addresses.failed(FIRST)
    assert addresses.in_order() == (FIRST,)


def test_tokens_of_several_addresses_are_not_shown(tmp_path):
    found = find_broker(None, ["chervil://geheim@a", "chervil://geh%40im@b"], tmp_path)
    assert found.others[0].token == "geh@im"
    assert "geheim" not in found.redacted + repr(found)
    assert "geh" not in found.redacted + repr(found)


# TLS


def test_the_files_of_the_setting_come_along_and_the_environments_go_before(tmp_path, monkeypatch):
    setting = TLSFiles("/app/ca")
    assert find_broker(None, "chervils://h", tmp_path, setting).files == setting
    assert find_broker("chervils://h", None, tmp_path, setting).files == setting
    monkeypatch.setenv("CHERVIL_TLS_CA", "/env/ca")
    assert find_broker(None, "chervils://h", tmp_path, setting).files == TLSFiles("/env/ca")
    assert find_broker(None, "chervils://h", tmp_path).files == TLSFiles("/env/ca")


@pytest.mark.parametrize(
    ("flag", "urls", "told"),
    [
        (None, "chervil://geheim@h:5/v", r"write chervils://\*\*\*@h:5/v, .* \(from app\)"),
        (None, ["chervils://h", "chervil://g"], "write chervils://g:2437"),
        ("chervil://h", "chervils://h", r"\(from flag --broker\)"),
        (None, None, "write chervils://127.0.0.1:2437"),
    ],
)
def test_a_setting_for_tls_with_an_address_that_has_none_is_refused(tmp_path, flag, urls, told):
    with pytest.raises(ValueError, match=told) as caught:
        find_broker(flag, urls, tmp_path, TLSFiles())
    assert "geheim" not in str(caught.value)


def test_a_setting_for_tls_leaves_unix_sockets_alone(tmp_path):
    assert find_broker("chervil+unix:///b.sock", "chervils://h", tmp_path, TLSFiles()).url.path == "/b.sock"


def test_files_in_the_environment_refuse_no_address(tmp_path, monkeypatch):
    monkeypatch.setenv("CHERVIL_TLS_CA", "/env/ca")
    assert find_broker(None, "chervil://h", tmp_path).url.scheme == "chervil"
