"""The user's state directory and the tokens in it, filed by the broker's address.

A broker writes its token there at its start; a client of the same user finds it by the URL.
"""

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote as shell_quote
from typing import Any
from urllib.parse import quote

from chervil import listeners
from chervil.address import BrokerURL

#: A token file is one line; more than this is not one of ours.
TOKEN_FILE_MAX = 4096

#: Who must not be able to change what is in a folder of ours.
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
#: What nobody else may do with a token that this user's broker has left.
_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO
#: The same for a file that was named. Its group may read it: that is how service managers and containers hand
#: secrets to a service (systemd's credentials have an access list, which shows as a group that may read).
_NAMED_OPEN_TO_OTHERS = stat.S_IWGRP | stat.S_IRWXO


class NotPrivate(PermissionError, ValueError):
    """Others may change a folder, or read a file, that must be this user's own; says what to do."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(errno.EPERM, message, os.fspath(path))

    def __str__(self) -> str:
        return str(self.strerror)


def state_dir() -> Path:
    """`$XDG_STATE_HOME/chervil`, or `~/.local/state/chervil`; it need not exist yet."""
    base = os.environ.get("XDG_STATE_HOME")
    # The XDG specification: a path that is not absolute is to be ignored.
    if base and Path(base).is_absolute():
        return Path(base) / "chervil"
    return Path.home() / ".local" / "state" / "chervil"


def token_path(url: BrokerURL) -> Path:
    """The file in which the broker at this address leaves its token."""
    return state_dir() / "tokens" / quote(url.key, safe="")


def data_dir() -> Path:
    """Where a broker keeps what outlives it: $CHERVIL_DATA, systemd's $STATE_DIRECTORY, or in `state_dir`.

    It need not exist yet. Raises NotPrivate for one that does, where others could change what is in it.
    """
    if named := os.environ.get("CHERVIL_DATA"):
        folder = Path(named)
    elif given := os.environ.get("STATE_DIRECTORY"):
        folder = Path(given.split(":")[0])
    else:
        folder = state_dir() / "data"
    check_folder(folder)
    return folder


def check_folder(path: Path) -> None:
    """Raises NotPrivate where anybody but this user and root could put files of his own into a folder.

    One that is not there, or cannot be looked at, is for whoever uses it to tell.
    """
    try:
        found = path.stat()
    except OSError:
        return
    if found.st_uid not in (os.geteuid(), 0):
        owner = listeners.user_name(found.st_uid)
        raise NotPrivate(
            path,
            f"the folder {path} belongs to {owner}, who could change what is in it; run this as {owner}, or "
            "with a folder of your own (CHERVIL_DATA, XDG_STATE_HOME)",
        )
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise NotPrivate(
            path,
            f"others may write to the folder {path}, and so change what is in it; "
            f"type: chmod 700 {shell_quote(str(path))}",
        )


def make_folder(path: Path) -> None:
    """Makes a folder that is this user's alone (0700), and those it lies in where they are missing.

    Raises OSError; NotPrivate where it is there and others could change what is in it.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    check_folder(path)


def write_private(path: Path, text: str) -> None:
    """Puts a line of text into a file that only this user can read (0600, in a folder of `make_folder`).

    Readers see the old content or the new, never a part; when it returns, the new one outlasts a loss of
    power. Raises OSError.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{os.urandom(8).hex()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_private(path: Path) -> str | None:
    """The line in a file of `write_private`; None where it is empty.

    Raises OSError; NotPrivate where others may read it.
    """
    return _read(path, _OPEN_TO_OTHERS)[0]


@dataclass(frozen=True, slots=True)
class Token:
    """A token for a broker. Its text shows in no repr."""

    text: str = field(repr=False)
    #: The user whose broker has left it in the state folder; None where somebody named it.
    left_by: int | None = None


def find_token(url: BrokerURL) -> Token | None:
    """The token for a broker, or None; on a Unix socket there is none, as the kernel says who we are.

    Looked for in the URL, in CHERVIL_TOKEN, in the file that CHERVIL_TOKEN_FILE names, and in
    `token_path(url)`: what lies there goes to no other address. Raises OSError when CHERVIL_TOKEN_FILE names
    a file that cannot be read, or is empty: that one was asked for; NotPrivate when others may read it.
    """
    if url.path is not None:
        return None
    if url.token:
        return Token(url.token)
    if token := os.environ.get("CHERVIL_TOKEN"):
        return Token(token.strip())
    if named := os.environ.get("CHERVIL_TOKEN_FILE"):
        token, _ = _read(Path(named), _NAMED_OPEN_TO_OTHERS)
        if token is None:
            raise OSError(errno.ENODATA, "the file is empty", named)
        return Token(token)
    try:
        token, owner = _read(token_path(url), _OPEN_TO_OTHERS)
    except NotPrivate:
        raise
    except OSError:
        return None
    return None if token is None else Token(token, owner)


def unreadable_token(url: BrokerURL) -> str | None:
    """What to say of a token that may lie in the state folder for a broker and cannot be read; else None.

    For when that broker asks for one: many brokers need none, and then it is no mistake.
    """
    path = token_path(url)
    try:
        with path.open("rb"):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"{path}, where one may be, cannot be read: {error.strerror}"


def read_token(url: BrokerURL) -> str | None:
    """The text of `find_token(url)`."""
    token = find_token(url)
    return None if token is None else token.text


def why_withheld(url: BrokerURL, peer: Any, token: Token | None) -> str | None:
    """Why a token is not for who listens at a URL, connected to `peer`; None where nothing speaks against it.

    While a broker is down another user can listen on its port. What was found in the state folder goes to the
    user who has left it there; with TLS the certificate says who is there.
    """
    if token is None or token.left_by is None or url.scheme != "chervil":
        return None
    stranger = listeners.stranger_at(peer, token.left_by)
    if stranger is None:
        return None
    return (
        f"{stranger} listens there, and not the user whose broker has left {token_path(url)}; no token is "
        "sent. Is the broker down? If that user's is meant, name a token for it with CHERVIL_TOKEN_FILE"
    )


def _read(path: Path, forbidden: int) -> tuple[str | None, int]:
    """A file's line and owner; raises NotPrivate where its mode has one of these bits."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if found.st_mode & forbidden:
            # Another's file may be readable for us through its group alone.
            mode = "600" if found.st_uid == os.geteuid() else "640"
            raise NotPrivate(
                path,
                f"others may read or change {path}, which holds a token; "
                f"type: chmod {mode} {shell_quote(str(path))}",
            )
        line = file.read(TOKEN_FILE_MAX).decode("utf-8", "replace").strip()
        return line or None, found.st_uid
