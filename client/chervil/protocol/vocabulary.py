"""The protocol's words as numbers: stages, outcomes, verdicts, sides, roles and option keys."""

from enum import Enum, IntEnum


class Stage(IntEnum):
    """Where a task is in its life (protocol.md, section 1)."""

    UNKNOWN = 0
    WAITING = 1
    SCHEDULED = 2
    QUEUED = 3
    LEASED = 4
    STARTED = 5
    RETRY = 6
    SUCCESS = 7
    FAILURE = 8
    DEAD = 9
    REVOKED = 10
    EXPIRED = 11
    UPSTREAM_FAILED = 12
    EVICTED = 13


#: Stages that a task does not leave unless it is published anew.
FINAL = frozenset(
    {
        Stage.SUCCESS,
        Stage.FAILURE,
        Stage.DEAD,
        Stage.REVOKED,
        Stage.EXPIRED,
        Stage.UPSTREAM_FAILED,
        Stage.EVICTED,
    }
)


class Outcome(IntEnum):
    """What came of a delivered task (protocol.md, COMPLETE)."""

    SUCCESS = 1
    FAILURE = 2
    RETRY = 3
    REPLACE = 4
    REJECT = 5
    IGNORE = 6
    RELEASE = 7
    REVOKED = 8
    LOST = 9


class Verdict(IntEnum):
    """Why a completion was not applied (protocol.md, COMPLETED)."""

    DUPLICATE = 1
    STALE = 2


class Side(Enum):
    """The two ends of a connection."""

    CLIENT = "c"
    BROKER = "b"

    # By identity: Enum's own hash is a Python call, and each frame looks a transition up.
    __hash__ = object.__hash__

    @property
    def other(self) -> "Side":
        return Side.BROKER if self is Side.CLIENT else Side.CLIENT


class Role(Enum):
    """What an identity may do; a command belongs to one."""

    ANY = "any"
    PUBLISH = "publish"
    CONSUME = "consume"
    CONTROL = "control"
    #: Holds the three before.
    ADMIN = "admin"


class TaskOption(IntEnum):
    """Keys of a task's options: even ones must be understood, odd ones may be passed on."""

    DELAY_MS = 2
    DUE_AT = 4
    EXPIRES_MS = 6
    EXPIRES_AT = 8
    IGNORE_RESULT = 10
    EARLY_ACK = 12
    FAIL_ON_LOST = 14
    DELIVERY_LIMIT = 16
    TIME_LIMIT_MS = 18
    SOFT_TIME_LIMIT_MS = 20
    INPUTS = 22
    ON_SUCCESS = 24
    ON_FAILURE = 26
    UNIQUE_KEY = 28
    LIMIT_KEY = 30
    RESULT_EXPIRES_MS = 32
    RETRIES = 34
    ROOT_ID = 1
    PARENT_ID = 3
    GROUP_ID = 5
    GROUP_INDEX = 7
    ORIGIN = 9
    SHADOW = 11
    STAMPS = 13
    MAX_RETRIES = 15


class RetryOption(IntEnum):
    """Keys of a RETRY completion's options; the times are those of a task."""

    DELAY_MS = 2
    DUE_AT = 4
    EXPIRES_MS = 6
    EXPIRES_AT = 8
    QUEUE = 36
    PRIORITY = 38
    BODY = 40


class RejectOption(IntEnum):
    """Keys of a REJECT completion's options."""

    REQUEUE = 2


class ReleaseOption(IntEnum):
    """Keys of a RELEASE completion's options."""

    CLAIMED = 2


class RevokedOption(IntEnum):
    """Keys of a REVOKED completion's options."""

    EXPIRED = 2


class Info(IntEnum):
    """Keys of a status row's info."""

    NAME = 1
    QUEUE = 3
    ATTEMPTS = 5
    RETRIES = 7
    WAITING_FOR = 9
    DUE_IN_MS = 11
    IN_STAGE_MS = 13
    WORKER = 15


class HelloOption(IntEnum):
    """Keys of HELLO's options."""

    ATTEMPT = 1


class WelcomeOption(IntEnum):
    """Keys of WELCOME's options."""

    DURABILITY = 1
    RELEASE = 3
    BODY_LIMIT = 5


class SubscribeOption(IntEnum):
    """Keys of SUBSCRIBE's options."""

    CONCURRENCY = 1
    PROCESS_ID = 3


PRIORITY_MAX = 9
#: Highest signal number of Linux, and the one that ends a process where none was named: SIGTERM.
SIGNAL_MAX = 64
SIGNAL_DEFAULT = 15
DELIVERY_LIMIT_MAX = 100
DELIVERY_LIMIT_DEFAULT = 3
RESULT_EXPIRES_MS_DEFAULT = 24 * 3600 * 1000
