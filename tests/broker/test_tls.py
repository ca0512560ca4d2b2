import asyncio
import contextvars
import datetime as dt
import socket
import ssl

import pytest
import trustme

from chervil_broker.tls import (
    TLS,
    TLSError,
    TLSFiles,
    certificate_names,
    say_why_on,
    server_context,
    why_it_failed,
)


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(scope="module")
def files(ca, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    issued = ca.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    return TLSFiles(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")


def shake_hands(server, client):
    """Both sides' handshake in memory; (the server's object, the exceptions of server and client)."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
    ]
    errors: list[ssl.SSLError | None] = [None, None]
    for _ in range(6):
        for number, side in enumerate(sides):
            if errors[number] is None:
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as error:
                    errors[number] = error
    return sides[0], *errors


def client_context(ca, **given):
    context = ssl.create_default_context()
    ca.configure_trust(context)
    for name, value in given.items():
        setattr(context, name, value)
    return context


def test_a_client_that_trusts_the_ca_is_let_in(ca, files):
    server, *errors = shake_hands(server_context(files._replace(client_ca=None)), client_context(ca))
    assert errors == [None, None]
    assert server.version() == "TLSv1.3"


def test_with_a_client_ca_a_certificate_is_asked_for_and_names_its_user(ca, files):
    _, error, _ = shake_hands(server_context(files), client_context(ca))
    assert why_it_failed(error) == "the client has no certificate, and --tls-client-ca asks for one"
    context = client_context(ca)
    ca.issue_cert("worker1.example.org", "shop@example.org").configure_cert(context)
    server, *errors = shake_hands(server_context(files), context)
    assert errors == [None, None]
    assert list(certificate_names(server.getpeercert())) == ["worker1.example.org", "shop@example.org"]


def test_an_expired_client_certificate_is_told_as_such(ca, files):
    context = client_context(ca)
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    ca.issue_cert("late.example.org", not_after=yesterday).configure_cert(context)
    _, error, _ = shake_hands(server_context(files), context)
    assert why_it_failed(error) == "the client's certificate is not accepted: certificate has expired"


def test_tls_older_than_1_2_is_refused(ca, files):
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old = client_context(
            ca, minimum_version=ssl.TLSVersion.TLSv1_1, maximum_version=ssl.TLSVersion.TLSv1_1
        )
    old.set_ciphers("ALL:@SECLEVEL=0")
    _, error, _ = shake_hands(server_context(files._replace(client_ca=None)), old)
    assert "no TLS version from 1.2 on" in why_it_failed(error)


def test_a_client_that_does_not_speak_tls_is_told_what_to_type(files):
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = server_context(files).wrap_bio(coming, going, server_side=True)
    coming.write(b"\0\0\0\x0e\x99\x01\x01\x01\x90\xa4shop\xc0\xc0\xc0\x80")
    with pytest.raises(ssl.SSLError) as failed:
        side.do_handshake()
    assert "chervils://" in why_it_failed(failed.value)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        ConnectionResetError(104, "Connection reset by peer"),
        BrokenPipeError(),
        EOFError(),
        asyncio.IncompleteReadError(b"", 1),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
    ],
)
def test_a_client_that_hangs_up_in_the_handshake_is_told_in_words(error):
    assert why_it_failed(error) == "the client ended the connection before TLS was done"


def test_what_is_no_failure_of_tls_is_told_as_it_is():
    assert why_it_failed(OSError(5, "Input/output error")) == "Input/output error"
    assert (
        why_it_failed(ConnectionAbortedError("SSL handshake took too long")) == "SSL handshake took too long"
    )
    assert why_it_failed(TimeoutError()) == "the client did not go on"


def test_wrong_files_are_named(ca, files, tmp_path):
    def refused(**changed):
        with pytest.raises(TLSError) as error:
            server_context(files._replace(**changed))
        return str(error.value)

    missing = tmp_path / "missing.pem"
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    other = tmp_path / "other.pem"
    ca.issue_cert("localhost").private_key_pem.write_to_path(other)
    assert refused(cert=missing) == f"--tls-cert {missing}: No such file or directory"
    assert refused(key=missing) == f"--tls-key {missing}: No such file or directory"
    assert refused(client_ca=missing) == f"--tls-client-ca {missing}: No such file or directory"
    assert refused(key=other) == f"--tls-key {other} does not belong to --tls-cert {files.cert}"
    assert f"--tls-cert {nonsense} and" in refused(cert=nonsense)
    assert "no PEM file of the kind that is wanted" in refused(client_ca=nonsense)


def test_a_certificate_that_is_of_no_use_is_warned_of_at_the_start_and_when_it_is_read_again(
    ca, files, tmp_path, caplog
):
    def put(days):
        issued = ca.issue_cert("localhost", not_after=dt.datetime.now(dt.UTC) + dt.timedelta(days=days))
        issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        issued.private_key_pem.write_to_path(tmp_path / "key.pem")

    caplog.set_level("INFO")
    put(15)
    tls = TLS(TLSFiles(tmp_path / "cert.pem", tmp_path / "key.pem"))
    assert caplog.messages == []
    put(13)
    tls.reload()
    (soon,) = caplog.messages
    assert soon.startswith(f"--tls-cert {tmp_path}/cert.pem expires on 20")
    put(-1)
    TLS(tls.files)
    assert caplog.messages[1].startswith(f"--tls-cert {tmp_path}/cert.pem expired on 20")
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_an_encrypted_key_is_refused_and_asks_nobody_at_the_terminal(files, tmp_path):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(TLSError, match="the key is encrypted; decrypt it"):
        server_context(files._replace(key=locked))


# Saying why


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        yield ours, theirs


def shake_hands_on(sock, server, client):
    """As `shake_hands`, in a task that talks on a socket."""

    def run():
        say_why_on(sock)
        return shake_hands(server, client)

    return contextvars.copy_context().run(run)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_whose_certificate_is_refused_is_told_why_before_the_connection_goes(
    ca, files, pair, version
):
    ours, theirs = pair
    _, error, _ = shake_hands_on(theirs, server_context(files), client_context(ca, maximum_version=version))
    assert why_it_failed(error) == "the client has no certificate, and --tls-client-ca asks for one"
    alert = ours.recv(100)
    # In 1.3 it is encrypted, and a record of application data by its looks.
    assert alert[:3] == (b"\x15\x03\x03" if version is ssl.TLSVersion.TLSv1_2 else b"\x17\x03\x03")
    assert int.from_bytes(alert[3:5]) == len(alert) - 5


def test_what_the_client_had_sent_is_read_so_that_its_end_is_not_reset(ca, files, pair):
    ours, theirs = pair
    ours.sendall(b"HELLO")
    shake_hands_on(theirs, server_context(files), client_context(ca))
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_a_client_that_is_gone_already_is_told_nothing(ca, files, pair):
    ours, theirs = pair
    ours.close()
    _, error, _ = shake_hands_on(theirs, server_context(files), client_context(ca))
    assert why_it_failed(error) == "the client has no certificate, and --tls-client-ca asks for one"


def test_a_handshake_that_succeeds_keeps_no_socket(ca, files, pair):
    server, *errors = shake_hands_on(
        pair[1], server_context(files._replace(client_ca=None)), client_context(ca)
    )
    assert errors == [None, None]
    assert server.sock is None
