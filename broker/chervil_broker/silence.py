"""Why a connection ended: its other end was closed, or nothing comes through to it any more."""

import errno

#: What the system says when packets stay away: a cable, a route, a machine is gone.
_UNREACHABLE = frozenset(
    {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
)


def is_silence(error: Exception | None) -> bool:
    """Whether the peer may still be there and be cut off, for all that this says."""
    return isinstance(error, OSError) and error.errno in _UNREACHABLE
