"""Celery's words for where a task is, and how the broker's own words (its stages) map to them.

Unlike Celery's, PENDING means that the task waits: an id that the broker does not know is UNKNOWN, and a task
that ended, but whose result was dropped or forgotten, is EVICTED.
"""

PENDING = "PENDING"
STARTED = "STARTED"
RETRY = "RETRY"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"
EVICTED = "EVICTED"
UNKNOWN = "UNKNOWN"

READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED, EVICTED})
UNREADY_STATES = frozenset({PENDING, STARTED, RETRY})
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
PROPAGATE_STATES = frozenset({FAILURE, REVOKED})
ALL_STATES = READY_STATES | UNREADY_STATES | {UNKNOWN}

#: Stage (protocol.md, section 1) to state.
STATE_OF_STAGE = {
    "UNKNOWN": UNKNOWN,
    "WAITING": PENDING,
    "SCHEDULED": PENDING,
    "QUEUED": PENDING,
    "LEASED": PENDING,
    "STARTED": STARTED,
    "RETRY": RETRY,
    "SUCCESS": SUCCESS,
    "FAILURE": FAILURE,
    "DEAD": FAILURE,
    "REVOKED": REVOKED,
    "EXPIRED": REVOKED,
    "UPSTREAM_FAILED": FAILURE,
    "EVICTED": EVICTED,
}
