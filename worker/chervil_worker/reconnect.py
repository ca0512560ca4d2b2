"""How long to wait before the broker is tried again, and how often to say so: no I/O, no clock."""

import random

from chervil.protocol.limits import GRACE_CLOSED_MS

#: Seconds between attempts: doubling from the first to the second, so that a broker that restarts is
#: found again at once and one that stays away is not hammered; and every worker is back within 5 s.
FIRST_SECONDS = 0.1
MAX_SECONDS = 4.0
#: The longest wait while the broker still keeps our session (GRACE_CLOSED_MS): a wait that outlasts that
#: has every running task run twice.
GRACE_MAX_SECONDS = 0.5
#: Seconds between two lines that say the same.
QUIET_SECONDS = 30.0


class Reconnect:
    """The attempts since the broker was last there."""

    def __init__(self) -> None:
        self._attempts = 0
        self._failing_since: float | None = None
        self._said_at: float | None = None

    def failed(self, now: float) -> tuple[float, bool]:
        """An attempt failed: seconds until the next one, and whether to log it. `now` is in seconds.

        The wait is drawn from its upper half, so that a thousand workers do not come back in step.
        """
        if self._failing_since is None:
            self._failing_since = now
        in_grace = now - self._failing_since < GRACE_CLOSED_MS / 1000
        longest = GRACE_MAX_SECONDS if in_grace else MAX_SECONDS
        delay = min(longest, FIRST_SECONDS * 2 ** min(self._attempts, 16))
        self._attempts += 1
        tell = self._said_at is None or now - self._said_at >= QUIET_SECONDS
        if tell:
            self._said_at = now
        return delay * random.uniform(0.5, 1.0), tell

    def succeeded(self) -> None:
        """The broker is there."""
        self._attempts = 0
        self._failing_since = None
        self._said_at = None
