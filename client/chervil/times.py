"""What users say about time, in the milliseconds of the wire."""

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

#: A hundred years: a delay beyond it is a mistake, such as milliseconds or a time of day for seconds.
DELAY_MAX_MS = 100 * 366 * 24 * 3600 * 1000


def relative_ms(value: float | timedelta, what: str) -> int:
    """A delay (seconds, or a timedelta) in milliseconds; `what` names it in the ValueError or TypeError."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{what} wants seconds or a timedelta, not {type(value).__name__}")
    milliseconds = seconds * 1000
    # Written so that NaN fails too.
    if not 0 <= milliseconds <= DELAY_MAX_MS:
        shown = int(seconds) if float(seconds).is_integer() else seconds
        raise ValueError(f"{what} wants seconds from 0 (at most 100 years), not {shown}")
    return round(milliseconds)


def absolute_ms(when: datetime, what: str, timezone: str) -> int:
    """A time in milliseconds since the epoch; a naive one is in `timezone`. The past before 1970 is 0."""
    if not isinstance(when, datetime):
        raise TypeError(f"{what} wants a datetime, not {type(when).__name__}")
    if when.tzinfo is None:
        when = when.replace(tzinfo=zone(timezone))
    return max(0, round(when.timestamp() * 1000))


def zone(name: str) -> tzinfo:
    """The time zone of a name such as Europe/Berlin; raises ValueError."""
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"no time zone {name!r}; names are such as UTC or Europe/Berlin") from None
