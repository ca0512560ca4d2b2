import socket
from pathlib import Path

import pytest

from chervil.address import DEFAULT_URL, BrokerURL, find_broker


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


@pytest.mark.parametrize("text", ["chervil://h:1/v%2F", "chervil+unix:///a%20b", "chervil://[fe80::1]:5"])
def test_text_parses_back(text):
    assert BrokerURL.parse(str(BrokerURL.parse(text))) == BrokerURL.parse(text)


@pytest.mark.parametrize("scheme", ["redis", "amqp", "http"])
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
    "text", ["geheim@h", "chervil://geheim@h:x", "chervil://geheim@:1", "chervil://geheim@h:0"]
)
def test_messages_hide_what_may_be_a_token(text):
    with pytest.raises(ValueError) as caught:
        BrokerURL.parse(text)
    assert "geheim" not in str(caught.value)


def test_a_unix_socket_wants_an_absolute_path():
    with pytest.raises(ValueError, match="three slashes"):
        BrokerURL.parse("chervil+unix://a/b")


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


def test_a_dev_path_too_long_for_a_socket_is_no_error(tmp_path: Path):
    assert find_broker(None, None, tmp_path / ("x" * 200)).source == "default"
