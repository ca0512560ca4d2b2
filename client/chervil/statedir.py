"""The user's state directory and the tokens in it, filed by the broker's address.

A broker writes its token there at its start; a client of the same user finds it by the URL.
"""

import errno
import os
from pathlib import Path
from urllib.parse import quote

from chervil.address import BrokerURL

#: A token file is one line; more than this is not one of ours.
TOKEN_FILE_MAX = 4096


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
    """Where a broker keeps what outlives it: $CHERVIL_DATA, systemd's $STATE_DIRECTORY, or in `state_dir`."""
    if named := os.environ.get("CHERVIL_DATA"):
        return Path(named)
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    return state_dir() / "data"


def write_private(path: Path, text: str) -> None:
    """Puts a line of text into a file that only this user can read (0600, in a directory of 0700).

    Readers see the old content or the new, never a part. Raises OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.urandom(8).hex()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


def read_token(url: BrokerURL) -> str | None:
    """The token for a broker, or None.

    Looked for in the URL, in CHERVIL_TOKEN, in the file that CHERVIL_TOKEN_FILE names, and in
    `token_path(url)`. Raises OSError when CHERVIL_TOKEN_FILE names a file that cannot be read, or is
    empty: that one was asked for.
    """
    if url.token:
        return url.token
    if token := os.environ.get("CHERVIL_TOKEN"):
        return token.strip()
    if named := os.environ.get("CHERVIL_TOKEN_FILE"):
        token = _first_line(Path(named))
        if token is None:
            raise OSError(errno.ENODATA, "the file is empty", named)
        return token
    try:
        return _first_line(token_path(url))
    except OSError:
        return None


def _first_line(path: Path) -> str | None:
    with path.open("rb") as file:
        return file.read(TOKEN_FILE_MAX).decode("utf-8", "replace").strip() or None
