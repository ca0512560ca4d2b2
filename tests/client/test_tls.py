import datetime as dt
import select
import socket
import ssl
import threading
from pathlib import Path

import pytest
import trustme

from chervil.tls import TLSSocket, context_for, failure, handshake_failure
from chervil.tls_files import TLSFailed, TLSFiles

HOST = "localhost"


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(scope="module")
def files(ca, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    issued = ca.issue_cert("shop@example.org")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return TLSFiles(*(str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem")))


@pytest.fixture
def serve(ca):
    """Starts a server for one connection, which runs `talk` on it; gives the client's connected socket."""
    threads = []
    ends = []

    def serve(talk, issued=None, **changes):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (issued or ca.issue_cert(HOST)).configure_cert(context)
        ca.configure_trust(context)
        for name, value in changes.items():
            setattr(context, name, value)
        ours, theirs = socket.socketpair()

        def run():
            try:
                with context.wrap_socket(theirs, server_side=True) as sock:
                    talk(sock)
            except OSError:
                theirs.close()

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
        ends.append(ours)
        ours.setblocking(False)
        return ours

    yield serve
    for end in ends:
        end.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def greeted(sock):
    while (writes := sock.shake_hands()) is not None:
        wait(sock, select.POLLOUT if writes else select.POLLIN)
    return sock


def wait(sock, event):
    poll = select.poll()
    poll.register(sock.fileno(), event)
    assert poll.poll(10_000)


def receive(sock):
    while True:
        wait(sock, select.POLLIN)
        try:
            return sock.recv(65_536)
        except BlockingIOError:
            pass


def send_for_ever(sock):
    while True:
        sock.send(b"x" * 100_000)


def refused(serve, files, host=HOST, **given):
    def talk(sock):
        sock.recv(1)

    sock = TLSSocket(serve(talk, **given), files, host)
    with pytest.raises(TLSFailed) as failed:
        receive(greeted(sock))
    sock.close()
    return str(failed.value)


def test_what_is_sent_comes_and_what_comes_is_received_whole(serve, files):
    def talk(sock):
        assert sock.recv(5) == b"hello"
        sock.sendall(b"x" * 16_384)
        sock.unwrap()

    sock = greeted(TLSSocket(serve(talk), files._replace(cert=None, key=None), HOST))
    assert sock.send(b"hello") == 5
    came = b""
    while len(came) < 16_384:
        came += receive(sock)
        assert sock._ssl.pending() == 0
    assert came == b"x" * 16_384
    assert receive(sock) == b""
    sock.close()


def test_nothing_there_is_told_as_a_socket_that_would_block(serve, files):
    done = threading.Event()
    sock = greeted(TLSSocket(serve(lambda _: done.wait(10)), files, HOST))
    with pytest.raises(BlockingIOError):
        sock.recv(100)
    with pytest.raises(BlockingIOError):
        send_for_ever(sock)
    done.set()
    sock.close()


def test_a_host_name_that_is_not_the_certificates_is_refused(serve, files):
    told = refused(serve, files, host="example.org")
    assert "certificate is not accepted" in told
    assert "example.org" in told


def test_an_expired_certificate_is_refused(serve, files, ca):
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    told = refused(serve, files, issued=ca.issue_cert(HOST, not_after=yesterday))
    assert told == (
        "the broker's certificate is not accepted: certificate has expired; "
        "the broker needs a new one, or this machine's clock is wrong"
    )


def test_a_certificate_of_an_unknown_ca_says_how_to_name_the_ca(serve, files):
    told = refused(serve, TLSFiles(), issued=trustme.CA().issue_cert(HOST))
    assert told.endswith("; name the file of the CA that it is of with CHERVIL_TLS_CA")


def test_a_certificate_that_is_not_of_the_ca_that_was_named_says_so(serve, files):
    told = refused(serve, files, issued=trustme.CA().issue_cert(HOST))
    assert told == (
        "the broker's certificate is not accepted: unable to get local issuer certificate; "
        f"no CA in {files.ca} signed it"
    )


def test_a_broker_that_asks_for_a_certificate_says_so(serve, files):
    told = refused(serve, files._replace(cert=None, key=None), verify_mode=ssl.CERT_REQUIRED)
    assert "CHERVIL_TLS_CERT" in told


def test_a_certificate_of_a_ca_that_the_broker_does_not_know_is_named(serve, files, tmp_path):
    issued = trustme.CA().issue_cert("shop@example.org")
    cert = tmp_path / "foreign.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(cert)
    told = refused(serve, TLSFiles(files.ca, str(cert)), verify_mode=ssl.CERT_REQUIRED)
    assert told == (
        f"the broker does not know the CA of this client's certificate {cert}; it wants one of its "
        "--tls-client-ca"
    )


def test_what_a_broker_says_as_it_hangs_up_is_read_where_nothing_can_be_sent_any_more(serve, files):
    """In TLS 1.3 it sees our certificate after our part of the handshake is over."""
    sock = TLSSocket(
        serve(lambda _: None, verify_mode=ssl.CERT_REQUIRED), files._replace(cert=None, key=None), HOST
    )
    greeted(sock)
    hung_up = select.poll()
    hung_up.register(sock.fileno(), 0)
    assert hung_up.poll(10_000)
    with pytest.raises(TLSFailed, match="asks for a client certificate"):
        sock.send(b"hello")
    sock.close()


def test_a_connection_that_broke_without_a_word_is_no_affair_of_tls(serve, files):
    sock = greeted(TLSSocket(serve(lambda _: None), files, HOST))
    hung_up = select.poll()
    hung_up.register(sock.fileno(), 0)
    assert hung_up.poll(10_000)
    with pytest.raises(ConnectionResetError, match=r"^the broker closed the connection$"):
        sock.send(b"hello")
    sock.close()


def test_a_broker_without_tls_is_told_from_one_with(files):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.sendall(b"\0\0\0\x40" + bytes(64))
        with pytest.raises(TLSFailed, match="does not speak TLS there; its URL begins with chervil://"):
            greeted(TLSSocket(ours, files, HOST))


def test_a_connection_that_ends_in_the_handshake_is_told(files):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.close()
    with ours, pytest.raises(TLSFailed, match="TLS"):
        greeted(TLSSocket(ours, files, HOST))


def test_the_certificate_is_shown(serve, files):
    seen = []
    sock = greeted(
        TLSSocket(serve(lambda s: seen.append(s.getpeercert()), verify_mode=ssl.CERT_REQUIRED), files, HOST)
    )
    while receive(sock):
        pass
    assert seen[0]["subjectAltName"] == (("email", "shop@example.org"),)
    sock.close()


def test_wrong_files_are_named(files, tmp_path):
    missing = str(tmp_path / "missing.pem")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    with pytest.raises(TLSFailed, match="CA file"):
        context_for(TLSFiles(ca=missing))
    with pytest.raises(TLSFailed, match="cannot be used: No such file"):
        context_for(TLSFiles(cert=missing))
    with pytest.raises(TLSFailed, match=f"^the key {nonsense} cannot be used: it is no PEM file of a key$"):
        context_for(files._replace(key=str(nonsense)))
    with pytest.raises(TLSFailed, match=f"^the certificate {nonsense} cannot be used: it is no PEM file"):
        context_for(files._replace(cert=str(nonsense)))
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    with pytest.raises(TLSFailed, match=f"^the certificate {broken} with the key {files.key} cannot be used"):
        context_for(files._replace(cert=str(broken)))


def test_a_certificate_whose_key_is_missing_says_how_to_name_it(files):
    with pytest.raises(
        TLSFailed, match=f"^the certificate {files.cert} has no key with it; name the file of"
    ):
        context_for(files._replace(key=None))


def test_a_key_of_another_certificate_is_named(files, ca, tmp_path):
    other = tmp_path / "other.key"
    ca.issue_cert("other@example.org").private_key_pem.write_to_path(other)
    with pytest.raises(TLSFailed, match=f"^the key {other} is not that of the certificate {files.cert}$"):
        context_for(files._replace(key=str(other)))


def test_a_context_is_made_once_and_again_when_a_file_changes(files, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Path(files.ca).read_bytes())
    first = context_for(TLSFiles(ca=str(ca)))
    assert context_for(TLSFiles(ca=str(ca))) is first
    other = trustme.CA()
    other.cert_pem.write_to_path(ca)
    assert context_for(TLSFiles(ca=str(ca))) is not first


def test_a_key_without_a_certificate_is_refused(files):
    with pytest.raises(TLSFailed, match="has no certificate; name that with CHERVIL_TLS_CERT"):
        context_for(TLSFiles(key=files.key))


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), ssl.SSLEOFError(8, "EOF")])
def test_an_end_in_the_handshake_may_be_for_want_of_a_certificate_or_a_broker_without_tls(error):
    assert str(handshake_failure(error, TLSFiles())) == (
        "the broker ended the connection in the TLS handshake; if it asks for a client certificate, name one "
        "with CHERVIL_TLS_CERT and CHERVIL_TLS_KEY; if it speaks no TLS there, its URL begins with chervil://"
    )
    told = str(handshake_failure(error, TLSFiles(cert="/etc/me.crt")))
    assert "see that /etc/me.crt is of its --tls-client-ca and has not expired; if it speaks no TLS" in told


def test_an_error_without_a_name_here_is_told_in_its_own_words():
    assert str(failure(OSError(5, "input/output error"), TLSFiles())) == "TLS failed: input/output error"
    assert str(failure(ssl.SSLError(1, "strange"), TLSFiles())).startswith("TLS failed: ")
