"""The broker's token: made at the first start, kept for its user's clients, known here as a hash."""

import hashlib
import secrets
from pathlib import Path

from chervil.statedir import NotPrivate, make_folder, read_private, write_private


def hashed(token: str) -> bytes:
    """What the broker keeps of a token."""
    return hashlib.sha256(token.encode()).digest()


def provide_token(paths: list[Path]) -> bytes:
    """Sees to it that each file holds this broker's token, and returns its hash.

    A token from an earlier start is kept, so that clients that have read it go on. All addresses
    of one broker share one token. Raises ValueError for what cannot be written, and where others could read
    a token or put one of theirs there.
    """
    try:
        for path in paths:
            make_folder(path.parent)
        token = next((kept for kept in map(_kept, paths) if kept), None) or secrets.token_urlsafe(32)
        for path in paths:
            if _kept(path) != token:
                write_private(path, token)
    except NotPrivate:
        raise
    except OSError as error:
        raise ValueError(
            f"cannot keep the token in {error.filename}: {error.strerror}; name a folder with XDG_STATE_HOME"
        ) from None
    return hashed(token)


def _kept(path: Path) -> str | None:
    try:
        return read_private(path)
    except FileNotFoundError:
        return None
