"""The broker's options, stated once: flags, help and documents derive from this table."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chervil.protocol.limits import BODY_DEFAULT, BODY_MAX
from chervil.statedir import data_dir
from chervil_broker.journal.writer import Fsync
from chervil_broker.sizes import available_memory, parse_size
from chervil_broker.tls import TLSFiles


def option(default: Any, doc: str, **more: Any) -> Any:
    """A field of BrokerOptions with its help text."""
    if callable(default):
        return field(default_factory=default, metadata={"help": doc, **more})
    return field(default=default, metadata={"help": doc, **more})


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """How one broker runs."""

    bind: tuple[str, ...] = option((), "Listen on this TCP address, HOST:PORT. May be repeated.")
    unix: str | None = option(None, "Listen on a Unix socket at this path; same-user clients need no token.")
    tls_cert: str | None = option(None, "PEM file with the broker's certificate chain: TCP then speaks TLS.")
    tls_key: str | None = option(None, "PEM file with the certificate's private key.")
    tls_client_ca: str | None = option(
        None, "PEM file of the CA whose client certificates are asked for; one may name a user."
    )
    no_tls: bool = option(False, "Listen to other machines without TLS: for private networks only.")
    no_auth: bool = option(False, "Ask nobody for a token: whoever can connect may do everything.")
    users: str | None = option(
        None, "The users file, which `chervil broker user` keeps; users.json in the data folder unless given."
    )
    max_connections: int = option(
        20_000, "Connections at once; fewer where the system's limit of open files is lower."
    )
    data: str | None = option(
        None,
        "Folder of the journal, in which everything is kept: $CHERVIL_DATA, $STATE_DIRECTORY, or one in the "
        "user's state folder unless given.",
    )
    fsync: Fsync = option(  # noqa: RUF009 -- a field, as the others
        "always",
        "When what is confirmed is on the disk: before that; a second later at most; when the system sees "
        "fit. The last two lose the newest when the machine stops, not when the broker does.",
        choices=("always", "interval", "off"),
    )
    memory: bool = option(False, "Keep nothing on disk: a restart loses what is queued.")
    max_memory: int = option(
        lambda: available_memory() // 2,
        "Memory for tasks and results, like 512MB; a quarter of it is for results. Half of what there is.",
    )
    body_limit: int = option(BODY_DEFAULT, f"Largest body of one task or result, up to {BODY_MAX >> 20}MB.")
    dedup_ids: int = option(
        1_000_000, "Ids of forgotten tasks that are remembered, so that a late publish makes no second task."
    )
    log_format: str = option("text", "How log lines are written.", choices=("text", "json"))
    loop: str = option(
        "uvloop", "Event loop; asyncio where uvloop is missing.", choices=("uvloop", "asyncio")
    )

    @property
    def folder(self) -> Path:
        """The data folder. Raises chervil.statedir.NotPrivate."""
        return data_dir() if self.data is None else Path(self.data)

    @property
    def tls_files(self) -> TLSFiles | None:
        """The files of TLS; None where it is not spoken."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        ca = None if self.tls_client_ca is None else Path(self.tls_client_ca)
        return TLSFiles(Path(self.tls_cert), Path(self.tls_key), ca)

    @property
    def result_memory(self) -> int:
        """Bytes for results and what is remembered of finished tasks."""
        return self.max_memory // 4

    @property
    def task_memory(self) -> int:
        """Bytes for tasks that are not finished."""
        return self.max_memory - self.result_memory

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together: give both, or neither")
        if self.tls_cert is None and self.tls_client_ca is not None:
            raise ValueError("--tls-client-ca is for TLS: give --tls-cert and --tls-key too")
        if self.tls_cert is not None and self.no_tls:
            raise ValueError("--no-tls and --tls-cert exclude each other")
        if self.memory and self.data is not None:
            raise ValueError("--memory keeps nothing and --data says where: give one of them")
        if self.max_connections < 1:
            raise ValueError(f"--max-connections is a number from 1, not {self.max_connections}")
        if not 1 <= self.body_limit <= BODY_MAX:
            raise ValueError(f"--body-limit is 1 to {BODY_MAX} bytes, not {self.body_limit}")
        if self.dedup_ids < 0:
            raise ValueError(f"--dedup-ids is a number from 0, not {self.dedup_ids}")
        if self.max_memory < 1 << 20:
            raise ValueError(f"--max-memory is at least 1MB, not {self.max_memory} bytes")


__all__ = ["BrokerOptions", "option", "parse_size"]
