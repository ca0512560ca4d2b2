"""Times and durations as people say them."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def clock(at_ms: object) -> str:
    """A moment (ms since the epoch) as local wall time, `14:03:07.120`; with its date if not of today."""
    at = _local(at_ms)
    if at is None:
        return str(at_ms)
    time = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"
    return time if _is_today(at) else f"{at:%Y-%m-%d} {time}"


def time_or_day(at_ms: object) -> str:
    """A moment in at most ten columns: local time if it is of today, else the day."""
    at = _local(at_ms)
    if at is None:
        return str(at_ms)
    return f"{at:%H:%M:%S}" if _is_today(at) else f"{at:%Y-%m-%d}"


def distance(milliseconds: float) -> str:
    """How long after another event: `+5 ms`, `+1.9 s`, `+5 min`; with a minus where a clock was set back."""
    sign, size = ("-", -milliseconds) if milliseconds < 0 else ("+", milliseconds)
    return f"{sign}{size / 1000:.1f} s" if 1000 <= size < 120_000 else f"{sign}{span(size)}"


def span(milliseconds: float) -> str:
    """A duration: `340 ms`, `12 s`, `5 min`, `3 h`, `2 d`."""
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    for unit, size, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _local(at_ms: object) -> datetime | None:
    """None for what is no moment, or none that a calendar has."""
    if not isinstance(at_ms, int | float):
        return None
    try:
        return (_EPOCH + timedelta(milliseconds=at_ms)).astimezone()
    except (OverflowError, ValueError, OSError):
        return None


def _is_today(at: datetime) -> bool:
    return at.date() == datetime.now(UTC).astimezone().date()
