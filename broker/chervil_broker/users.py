"""Who may use this broker, and for what: the users file, read, changed and written.

A user has one token, roles and vhosts; what is not granted is denied. The file is JSON of mode 0600. Of a
token it holds the SHA-256 only: a token is 256 random bits, so there is nothing to guess slowly.

    {"version": 1,
     "users": {"shop": {"token_sha256": "…", "roles": ["publish"], "vhosts": ["default"]}},
     "vhosts": {"shop": {"max_memory": 268435456, "max_tasks": 100000, "max_connections": 50}}}
"""

import contextlib
import fcntl
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from chervil.address import DEFAULT_VHOST
from chervil.protocol import Role
from chervil.statedir import NotPrivate, check_folder, data_dir, make_folder, write_private
from chervil_broker.tokens import hashed

VERSION = 1
#: Roles that a user can be given; `admin` holds all others.
ROLES = (Role.PUBLISH, Role.CONSUME, Role.CONTROL, Role.ADMIN)
#: Each has an engine of its own and a share of the memory.
VHOSTS_MAX = 256
#: Each costs a few hundred bytes; a longer file is none of ours.
USERS_MAX = 10_000
#: Names stand in tokens, URLs, certificates and logs.
NAME_MAX = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{NAME_MAX - 1}}}")
#: What follows a token's name and dot, see _new_token.
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
#: What identities without an entry here are called (access.py).
RESERVED = frozenset({"local", "anybody"})
#: What the token of an unknown user is compared with, so that the answer takes as long.
_NOBODYS_HASH = bytes(32)
_QUOTAS = ("max_memory", "max_tasks", "max_connections")


class UsersError(ValueError):
    """The file, or a change of it, is wrong; the message says what and what to do."""


class UsersUnreadable(UsersError):
    """The file could not be read just now; its content may be right."""


class User(NamedTuple):
    """Somebody, and what is granted."""

    name: str
    token_hash: bytes
    roles: frozenset[Role]
    vhosts: frozenset[str]


class Quotas(NamedTuple):
    """What one vhost may take: bytes of tasks and results, unfinished tasks, connections. None: no limit."""

    max_memory: int | None = None
    max_tasks: int | None = None
    max_connections: int | None = None


@dataclass
class Users:
    """What a users file says."""

    users: dict[str, User] = field(default_factory=dict)
    #: The vhosts that there are, in the order in which they were set; the default one is always there.
    vhosts: dict[str, Quotas] = field(default_factory=lambda: {DEFAULT_VHOST: Quotas()})

    def of_token(self, token: str) -> User | None:
        """Whose token this is; the comparison takes as long whether or not there is such a user."""
        user = self.users.get(token.rpartition(".")[0])
        expected = _NOBODYS_HASH if user is None else user.token_hash
        return user if hmac.compare_digest(expected, hashed(token)) else None

    def add(self, name: str, roles: Collection[str], vhosts: Collection[str]) -> str:
        """Adds a user and returns the token, which is kept nowhere. Raises UsersError."""
        _check_name("user", name)
        if name in self.users:
            raise UsersError(f"user {name!r} exists; a new token for it: chervil broker user rotate {name}")
        if len(self.users) >= USERS_MAX:
            raise UsersError(f"there are {USERS_MAX} users already; remove some")
        token = _new_token(name)
        granted = _roles(f"user {name!r}", roles)
        self.users[name] = User(name, hashed(token), granted, self._vhosts(vhosts))
        return token

    def grant(self, name: str, roles: Collection[str], vhosts: Collection[str]) -> User:
        """Gives a user other roles and vhosts; what is empty stays. Raises UsersError."""
        user = self._user(name)
        if roles:
            user = user._replace(roles=_roles(f"user {name!r}", roles))
        if vhosts:
            user = user._replace(vhosts=self._vhosts(vhosts))
        self.users[name] = user
        return user

    def rotate(self, name: str) -> str:
        """Gives a user a new token and returns it; the old one is worth nothing from now on."""
        user = self._user(name)
        token = _new_token(name)
        self.users[name] = user._replace(token_hash=hashed(token))
        return token

    def remove(self, name: str) -> None:
        del self.users[self._user(name).name]

    def set_vhost(self, name: str, quotas: Quotas, *, new: bool) -> None:
        """Adds a vhost, or changes the quotas of one that is there. Raises UsersError.

        It is the last one then: where quotas do not fit, those that were set before go first.
        """
        _check_name("vhost", name)
        if new and name in self.vhosts:
            raise UsersError(f"vhost {name!r} exists; change it: chervil broker vhost set {name}")
        if not new:
            self.quotas(name)
        if len(self.vhosts) >= VHOSTS_MAX and new:
            raise UsersError(f"there are {VHOSTS_MAX} vhosts already; remove some")
        self.vhosts.pop(name, None)
        self.vhosts[name] = quotas

    def quotas(self, name: str) -> Quotas:
        """What a vhost may take. Raises UsersError where there is none of that name."""
        try:
            return self.vhosts[name]
        except KeyError:
            raise UsersError(f"there is no vhost {name!r}; add it: chervil broker vhost add {name}") from None

    def remove_vhost(self, name: str) -> None:
        """Takes a vhost away. Raises UsersError, for the default one and where users still have it."""
        if name == DEFAULT_VHOST:
            raise UsersError(f"vhost {name!r} is always there; its quotas: chervil broker vhost set {name}")
        if name not in self.vhosts:
            raise UsersError(f"there is no vhost {name!r}; there are: {', '.join(sorted(self.vhosts))}")
        holders = sorted(user.name for user in self.users.values() if name in user.vhosts)
        if holders:
            raise UsersError(
                f"vhost {name!r} is granted to {', '.join(holders)}; remove them first, or: "
                "chervil broker user set NAME --vhost ..."
            )
        del self.vhosts[name]

    def _vhosts(self, names: Collection[str]) -> frozenset[str]:
        for name in names:
            self.quotas(name)
        return frozenset(names)

    def _user(self, name: str) -> User:
        try:
            return self.users[name]
        except KeyError:
            raise UsersError(f"there is no user {name!r}; list them: chervil broker user list") from None


def users_path(named: str | None, data: str | None = None) -> Path:
    """The users file: the one that was named, or that of the data folder, which may be named too."""
    if named:
        return Path(named)
    return (Path(data) if data else data_dir()) / "users.json"


def load(path: Path) -> Users:
    """What the file says; without a file there are no users and one vhost. Raises UsersError."""
    try:
        check_folder(path.parent)
        file = path.open("rb")
    except FileNotFoundError:
        return Users()
    except NotPrivate as error:
        raise UsersError(str(error)) from None
    except OSError as error:
        raise UsersUnreadable(f"cannot read {path}: {error.strerror}") from None
    with file:
        mode = os.fstat(file.fileno()).st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsersError(
                f"{path} can be written by others, who could make themselves users: chmod 600 {path}"
            )
        try:
            text = file.read()
        except OSError as error:
            raise UsersUnreadable(f"cannot read {path}: {error.strerror}") from None
    try:
        return _users(json.loads(text))
    except KeyError as error:
        raise UsersError(f"{path} is not a users file: {error} is missing") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsersError(f"{path} is not a users file: {error}") from None


def save(path: Path, users: Users) -> None:
    """Writes the file; who reads it sees the old content or the new. Raises UsersError."""
    content = {
        "version": VERSION,
        "users": {
            user.name: {
                "token_sha256": user.token_hash.hex(),
                "roles": [role.value for role in ROLES if role in user.roles],
                "vhosts": sorted(user.vhosts),
            }
            for user in users.users.values()
        },
        "vhosts": {
            name: {key: value for key, value in quotas._asdict().items() if value is not None}
            for name, quotas in users.vhosts.items()
        },
    }
    try:
        write_private(path, json.dumps(content, indent=2))
    except OSError as error:
        raise UsersError(f"cannot write {path}: {error.strerror}") from None


@contextlib.contextmanager
def changing(path: Path) -> Iterator[Users]:
    """The file's content, to be changed; written at the end unless there is an error. One change at once."""
    try:
        make_folder(path.parent)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsersError(f"cannot write {path}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        users = load(path)
        yield users
        save(path, users)
    finally:
        os.close(lock)


class UsersFile:
    """The file as a running broker sees it."""

    def __init__(self, path: Path) -> None:
        """Reads it; raises UsersError."""
        self.path = path
        self._seen = self._look()
        self.users = load(path)

    def refresh(self) -> bool:
        """Reads the file again if it has changed; whether it has.

        Raises UsersError: once for each content that is wrong, and again where the file could not be read.
        """
        seen = self._look()
        if seen == self._seen:
            return False
        try:
            self.users = load(self.path)
        except UsersUnreadable:
            raise
        except UsersError:
            self._seen = seen
            raise
        self._seen = seen
        return True

    def _look(self) -> tuple[int, ...]:
        """What changes with the content: the file is replaced, never written in place."""
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode


def _users(content: Any) -> Users:
    """Raises ValueError, TypeError, KeyError or AttributeError for what is no users file."""
    if content["version"] != VERSION:
        raise ValueError(f"its version is {content['version']!r}, this release reads {VERSION}")
    vhosts = {}
    for name, quotas in content["vhosts"].items():
        _check_name("vhost", name)
        vhosts[name] = Quotas(**{key: _count(name, key, value) for key, value in quotas.items()})
    users = Users(vhosts=vhosts if DEFAULT_VHOST in vhosts else {DEFAULT_VHOST: Quotas(), **vhosts})
    for name, granted in content["users"].items():
        _check_name("user", name)
        token_hash = bytes.fromhex(granted["token_sha256"])
        if len(token_hash) != len(_NOBODYS_HASH):
            raise ValueError(f"user {name!r}: token_sha256 is not a SHA-256")
        roles = _roles(f"user {name!r}", granted["roles"])
        if not isinstance(granted["vhosts"], list):
            raise TypeError(f"user {name!r}: vhosts is a list of names")
        users.users[name] = User(name, token_hash, roles, frozenset(granted["vhosts"]))
    if len(users.users) > USERS_MAX or len(users.vhosts) > VHOSTS_MAX:
        raise ValueError(f"more than {USERS_MAX} users or {VHOSTS_MAX} vhosts")
    return users


def _count(vhost: str, key: str, value: Any) -> int:
    if key not in _QUOTAS or type(value) is not int or value < 1:
        raise ValueError(f"vhost {vhost!r}: {key}: {value!r}; known are {', '.join(_QUOTAS)}, each from 1")
    return value


def _roles(whose: str, names: Collection[str]) -> frozenset[Role]:
    known = {role.value: role for role in ROLES}
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        said = ", ".join(map(repr, wrong)) or "none"
        raise UsersError(f"{whose}: roles are {', '.join(known)}, not {said}")
    return frozenset(known[name] for name in names)


def _check_name(what: str, name: str) -> None:
    if what == "user" and name in RESERVED:
        raise UsersError(f"user {name!r}: the broker calls others so; take another name")
    if not _NAME.fullmatch(name):
        raise UsersError(
            f"{what} {name!r}: a name is 1 to {NAME_MAX} letters, digits or . _ @ - "
            "and begins with a letter or digit"
        )


def named_by(token: str) -> str | None:
    """Whose token it says that it is; None for what no such token looks like, and may be another secret."""
    name, _, secret = token.rpartition(".")
    return name if _NAME.fullmatch(name) and _SECRET.fullmatch(secret) else None


def _new_token(name: str) -> str:
    """256 bits; the name before the dot says whose hash to compare, and whose token it is if it is found."""
    return f"{name}.{secrets.token_urlsafe(32)}"
