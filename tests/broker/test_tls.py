import asyncio
import datetime as dt
import ssl

import pytest
import trustme

from chervil_broker.tls import TLSError, TLSFiles, certificate_names, server_context, why_it_failed


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


def test_what_is_no_failure_of_tls_is_told_as_it_is():
    assert why_it_failed(ConnectionResetError("reset")) == "reset"
    assert why_it_failed(asyncio.IncompleteReadError(b"", 1)).startswith("0 bytes read")
    assert why_it_failed(TimeoutError()) == "TimeoutError"


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
