"""What makes a broker's network safe: certificates of an authority of our own, and users with tokens."""

import subprocess
import sys
from pathlib import Path

import trustme

from tests.machines.network import PREFIX

PORT = 2437


class Secured:
    """TLS, and a token for each user; `folder` is readable by all machines, as if it had been copied."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._address = f"{PREFIX}.1"  # the broker's machine is the first
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        certificate = authority.issue_cert(self._address)
        (folder / "key.pem").touch(mode=0o600)
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        for part in certificate.cert_chain_pems:
            part.write_to_path(folder / "cert.pem", append=True)
        self._users = folder / "users.json"
        for user, role in (("producer", "publish"), ("worker", "consume")):
            self._add_user(user, role)

    @property
    def broker_flags(self) -> list[str]:
        """To listen, and to know who comes."""
        return [
            *("--bind", f"{self._address}:{PORT}", "--users", f"{self._users}"),
            *("--tls-cert", f"{self._folder}/cert.pem", "--tls-key", f"{self._folder}/key.pem"),
        ]

    def environment(self, user: str) -> dict[str, str]:
        """How a user's programs find the broker, trust it and are let in."""
        return {
            "CHERVIL_BROKER_URL": f"chervils://{self._address}:{PORT}",
            "CHERVIL_TLS_CA": str(self._folder / "ca.pem"),
            "CHERVIL_TOKEN_FILE": str(self._folder / f"{user}.token"),
        }

    def _add_user(self, name: str, role: str) -> None:
        command = ["chervil_broker", "user", "add", name, "--role", role, "--users", str(self._users)]
        token = self._folder / f"{name}.token"
        token.touch(mode=0o600)
        with token.open("wb") as file:
            subprocess.run([sys.executable, "-m", *command], stdout=file, stderr=subprocess.PIPE, check=True)
