"""The certificates of docs/deployment.md: made as it says, and good for what it says."""

import re
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.deploy.commandlines import ROOT

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the document's blocks that begin certificates and sign them make."""
    folder = tmp_path_factory.mktemp("certificates")
    text = (ROOT / "docs" / "deployment.md").read_text()
    blocks = [
        block
        for block in re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        if "openssl" in block
    ]
    assert len(blocks) == 3
    ran = subprocess.run(
        ["sh", "-eu"],
        input="".join(blocks),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "broker.crt: OK" in ran.stdout
    return folder


def shake_hands(made: Path, host: str, *, with_certificate: bool) -> dict:
    """A handshake in memory under the strictest checks; what the server then knows of the client."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(made / "broker.crt", made / "broker.key")
    server_side.load_verify_locations(made / "ca.crt")
    server_side.verify_mode = ssl.CERT_REQUIRED if with_certificate else ssl.CERT_NONE
    server_side.verify_flags |= ssl.VERIFY_X509_STRICT
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.load_verify_locations(made / "ca.crt")
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    if with_certificate:
        client_side.load_cert_chain(made / "web.crt", made / "web.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    left = [client, server]
    for _ in range(10):
        for side in list(left):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            left.remove(side)
    assert not left
    return server.getpeercert() or {}


@pytest.mark.parametrize("host", ["broker.example.com", "broker", "localhost", "10.0.0.5", "127.0.0.1"])
def test_the_broker_is_known_by_each_of_its_names(made, host):
    assert shake_hands(made, host, with_certificate=False) == {}


def test_another_name_is_refused(made):
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(made, "elsewhere.example.com", with_certificate=False)


def test_a_client_certificate_names_its_user(made):
    certificate = shake_hands(made, "broker", with_certificate=True)
    assert certificate["subjectAltName"] == (("DNS", "web"),)


def test_keys_are_for_their_owner_alone(made):
    for name in ("ca.key", "broker.key", "web.key"):
        assert (made / name).stat().st_mode & 0o077 == 0
