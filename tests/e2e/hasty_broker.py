"""A broker ten times as quick to take a silent worker for lost: `python -m tests.e2e.hasty_broker`.

There is no option for that, as nobody needs one; so the limits are changed before anything reads them.
"""

from chervil.protocol import limits

limits.HEARTBEAT_MS //= 10
limits.GRACE_SILENT_MS //= 10

if __name__ == "__main__":
    from chervil_broker.cli import broker

    broker()
