"""Sessions that outlive their connections: who may take one up again, and which wait for that.

The engine knows a session by a number. A client knows it by an id, and proves with a secret that it
is its own (protocol.md, section 3); of the secret only a hash is kept.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import NamedTuple

from chervil_broker.access import Identity
from chervil_broker.journal.records import SessionEnded, SessionOpened
from chervil_broker.vhost import VHost

#: Sessions that are kept without a connection. Each costs about 2 KiB besides its leases, which count as
#: tasks do: all workers of a large site may be cut off at once. Beyond it the oldest is given up.
SUSPENDED_MAX = 10_000
ID_SIZE = 16
SECRET_SIZE = 32


class WrongSecret(Exception):
    """Somebody named a session that is here and could not prove that it is its own."""


class Late(Exception):
    """A HELLO that its client gave up came after one that it sent later."""


class Credentials(NamedTuple):
    """What WELCOME tells of a session."""

    id: bytes
    secret: bytes


class _Known(NamedTuple):
    id: bytes
    secret_hash: bytes
    name: str
    owner: Identity
    vhost: VHost
    #: Whether it is to outlive the broker.
    kept: bool = False


class Sessions:
    """Every session that the engine has, by its number and by its id."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        """`random` gives so many unguessable bytes."""
        self._random = random
        self._last = 0
        self._known: dict[int, _Known] = {}
        self._numbers: dict[bytes, int] = {}
        #: The newest attempt of its client, by number; of a client that counts them.
        self._attempts: dict[int, int] = {}
        #: Numbers of those without a connection, oldest first.
        self._suspended: dict[int, None] = {}
        #: What the journal is to be told, in order.
        self._news: list[SessionOpened | SessionEnded] = []

    def open(self, name: str, owner: Identity, vhost: VHost) -> tuple[int, Credentials]:
        """A new session of the client of that name: its number, and what proves it."""
        self._last += 1
        credentials = Credentials(self._random(ID_SIZE), self._random(SECRET_SIZE))
        self._known[self._last] = _Known(credentials.id, _hashed(credentials.secret), name, owner, vhost)
        self._numbers[credentials.id] = self._last
        return self._last, credentials

    def restore(self, record: SessionOpened, owner: Identity, vhost: VHost) -> None:
        """Knows a session again that the journal tells of; it has no connection."""
        number = record.number
        self._last = max(self._last, number)
        self._known[number] = _Known(record.id, record.secret_hash, record.name, owner, vhost, kept=True)
        self._numbers[record.id] = number
        self._suspended[number] = None

    def pass_over(self, number: int) -> None:
        """The journal tells of one that nobody may take up again: it is over, and its number was used."""
        self._last = max(self._last, number)
        self._news.append(SessionEnded(number))

    def keep(self, number: int) -> None:
        """It consumes now: it is to outlive the broker."""
        known = self._known[number]
        if not known.kept:
            self._known[number] = known._replace(kept=True)
            told = self.record_of(number)
            assert told is not None
            self._news.append(told)

    def record_of(self, number: int) -> SessionOpened | None:
        """What the journal is to be told of a session; None for one that does not outlive the broker."""
        known = self._known.get(number)
        if known is None or not known.kept:
            return None
        owner, vhost = known.owner, known.vhost
        sequence = vhost.engine.completed_up_to(number)
        return SessionOpened(
            number, known.id, known.secret_hash, known.name, owner.name, owner.by, owner.user is not None,
            vhost.name, sequence,
        )  # fmt: skip

    def take_news(self) -> list[SessionOpened | SessionEnded]:
        """What the journal is to be told since the last call."""
        news, self._news = self._news, []
        return news

    def find(self, credentials: Credentials, owner: Identity, vhost: VHost) -> int | None:
        """The session that these prove; None for one that is not here. Raises WrongSecret.

        A session is its user's, and of one vhost: nobody else takes it up, whatever he has come to know.
        """
        number = self._numbers.get(credentials.id)
        if number is None:
            return None
        known = self._known[number]
        proven = hmac.compare_digest(known.secret_hash, _hashed(credentials.secret))
        if not proven or _whose(known.owner) != _whose(owner) or known.vhost is not vhost:
            raise WrongSecret
        return number

    def owned(self) -> list[tuple[int, Identity, VHost]]:
        """Every session, whose it is, and where."""
        return [(number, known.owner, known.vhost) for number, known in self._known.items()]

    def numbers(self) -> list[int]:
        """Of every session."""
        return list(self._known)

    def renew(self, number: int, owner: Identity) -> None:
        """Its user is the same, and may do something else."""
        self._known[number] = self._known[number]._replace(owner=owner)

    def vhost(self, number: int) -> VHost:
        """Where it is."""
        return self._known[number].vhost

    def name(self, number: int) -> str:
        """What its client called itself when it was opened."""
        return self._known[number].name

    def suspend(self, number: int) -> list[int]:
        """Its connection is gone. Returns the sessions that are one too many: close and drop them."""
        self._suspended[number] = None
        return list(self._suspended)[: max(0, len(self._suspended) - SUSPENDED_MAX)]

    def resume(self, number: int, attempt: int | None) -> None:
        """Its client has a connection again, numbered so by the client. Raises Late: it stays where it is."""
        if attempt is not None:
            if attempt <= self._attempts.get(number, -1):
                raise Late
            self._attempts[number] = attempt
        self._suspended.pop(number, None)

    def drop(self, number: int) -> None:
        """The engine has closed it: nobody can take it up any more."""
        known = self._known.pop(number)
        if known.kept:
            self._news.append(SessionEnded(number))
        del self._numbers[known.id]
        self._suspended.pop(number, None)
        self._attempts.pop(number, None)

    def __contains__(self, number: int) -> bool:
        return number in self._known

    def __len__(self) -> int:
        return len(self._known)


def _whose(owner: Identity) -> tuple[str, bool]:
    """Whose a session is: of a user of the file, or of somebody who is not in there."""
    return owner.name, owner.user is None


def _hashed(secret: bytes) -> bytes:
    """What is kept of a secret. It is random and 256 bits long: there is nothing to guess slowly."""
    return hashlib.sha256(secret).digest()
