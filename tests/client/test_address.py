import socket
from pathlib import Path

import pytest

from chervil.address import DEFAULT_URL, Addresses, BrokerURL, Found, find_broker
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


def test_a_folder_that_may_not_be_looked_into_has_no_dev(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", forbidden)
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


def test_the_address_that_failed_gives_way_to_the_next():
    one, two, three = (BrokerURL.parse(f"chervil://h:{port}") for port in (1, 2, 3))
    addresses = Addresses(Found(one, "app", (two, three)))
    addresses.failed(two)
    assert addresses.first is one
    addresses.failed(one)
    addresses.failed(one)  # by another thread
    assert addresses.in_order() == (two, three, one)
    addresses.failed(two)
    addresses.failed(three)
    assert addresses.first is one


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
