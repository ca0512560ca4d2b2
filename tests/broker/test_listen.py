import socket
import stat

import pytest

from chervil_broker.listen import ListenError, adopt, check_open, listen_tcp, listen_unix, parse_bind
from chervil_broker.options import BrokerOptions


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:2437", ("127.0.0.1", 2437)),
        ("localhost", ("localhost", 2437)),
        ("127.0.0.1", ("127.0.0.1", 2437)),
        (":9000", ("127.0.0.1", 9000)),
        ("[::1]:7", ("::1", 7)),
    ],
)
def test_bind_is_host_and_port(text, address):
    assert parse_bind(text) == address


@pytest.mark.parametrize(
    "text", ["127.0.0.1:http", "127.0.0.1:70000", "2437", "foo", "0.0.0.0", "::1", "[::1]", ""]
)
def test_a_bad_bind_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"is no HOST:PORT; type --bind 127\.0\.0\.1:2437"):
        parse_bind(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "example.org", "::"])
def test_other_machines_want_tls_or_the_word_that_none_is_needed(host, tmp_path):
    with pytest.raises(
        ValueError, match="open to other machines: give --tls-cert and --tls-key; or --no-tls"
    ):
        check_open(host, BrokerOptions())
    check_open(host, BrokerOptions(no_tls=True))
    check_open(host, BrokerOptions(tls_cert="c", tls_key="k"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.9.1"])
def test_this_machine_wants_no_tls(host):
    check_open(host, BrokerOptions())


def test_with_tls_the_url_says_so():
    server, url = listen_tcp("chervils", "127.0.0.1", 0)
    with server:
        assert str(url).startswith("chervils://127.0.0.1:")


def test_a_socket_that_was_passed_is_told_by_its_url(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert str(adopt(server, BrokerOptions())[1]) == f"chervil://127.0.0.1:{port}"
        secured = BrokerOptions(tls_cert="c", tls_key="k")
        assert str(adopt(server, secured)[1]) == f"chervils://127.0.0.1:{port}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "b.sock"))
        assert str(adopt(server, BrokerOptions())[1]) == f"chervil+unix://{tmp_path}/b.sock"
    with socket.socket(socket.AF_UNIX) as server, pytest.raises(ListenError, match="has no path"):
        adopt(server, BrokerOptions())
    with socket.create_server(("0.0.0.0", 0)) as server, pytest.raises(ValueError, match="--no-tls"):
        adopt(server, BrokerOptions())


def test_port_zero_picks_a_free_one_and_the_url_names_it():
    server, url = listen_tcp("chervil", "localhost", 0)
    with server:
        assert url.host == "127.0.0.1"
        assert url.port == server.getsockname()[1] != 0


def test_an_address_in_use_says_what_to_type():
    server, url = listen_tcp("chervil", "127.0.0.1", 0)
    with server, pytest.raises(ListenError, match=f"127.0.0.1:{url.port} is in use.*chervil health.*--bind"):
        listen_tcp("chervil", "127.0.0.1", url.port)


def test_an_address_of_somebody_else_is_an_error():
    with pytest.raises(ListenError, match=r"can't listen on 203\.0\.113\.1"):
        listen_tcp("chervil", "203.0.113.1", 0)


def test_the_unix_socket_is_for_its_user_only(tmp_path):
    server, url = listen_unix(tmp_path / "broker.sock")
    with server:
        assert stat.S_IMODE((tmp_path / "broker.sock").stat().st_mode) == 0o600
        assert str(url) == f"chervil+unix://{tmp_path}/broker.sock"


def test_the_socket_of_a_broker_that_is_gone_is_replaced(tmp_path):
    path = tmp_path / "broker.sock"
    listen_unix(path)[0].close()
    server, _ = listen_unix(path)
    with server, socket.socket(socket.AF_UNIX) as client:
        assert client.connect_ex(str(path)) == 0


def test_the_socket_of_a_living_broker_is_left_alone(tmp_path):
    server, _ = listen_unix(tmp_path / "broker.sock")
    with server, pytest.raises(ListenError, match=r"is listening on .* already"):
        listen_unix(tmp_path / "broker.sock")


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("dear diary")
    with pytest.raises(ListenError, match="exists and is no socket"):
        listen_unix(path)
    assert path.read_text() == "dear diary"


def test_a_socket_that_answers_strangely_is_left_alone(tmp_path):
    path = tmp_path / "datagrams.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(ListenError, match="can't tell whether"):
            listen_unix(path)


def test_too_long_a_path_is_refused_by_name(tmp_path):
    with pytest.raises(ListenError, match="longer than 107 bytes"):
        listen_unix(tmp_path / ("x" * 100) / "broker.sock")


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ListenError, match="can't listen on"):
        listen_unix(tmp_path / "nowhere" / "broker.sock")
