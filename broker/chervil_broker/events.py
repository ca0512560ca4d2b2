"""What the engine tells of, as lines in the log."""

import logging
from collections import Counter
from typing import Any

from chervil.protocol import to_text

log = logging.getLogger("chervil.broker")

#: Events of a kind that have a line each where many come at once: one COMPLETE may reject 8,192 tasks.
TOLD_MAX = 3

_EVENTS = {
    "queue_without_consumer": (
        "no worker consumes queue %(queue)r, which has %(ready)s; start one: "
        "chervil -A MODULE worker -Q %(queue)s"
    ),
    "unknown_task": "queue %(queue)r: task %(name)r waits; no worker of this queue knows that name",
    "task_dead": "%(name)s[%(id)s] is DEAD after %(attempts)s: its process or its worker was lost each time",
    "task_rejected": "%(name)s[%(id)s] is DEAD: rejected by %(worker)s: %(reason)s",
    "task_parked": "queue %(queue)r: %(count)s %(name)r: DEAD: %(reason)s",
    "dead_dropped": "dead letters that were dropped, as they took more than %(limit)d bytes: %(count)s",
    "session_lost": "worker %(worker)s did not come back; leases that go back: %(leases)d",
    "stale_completions": "%(worker)s completed tasks that it had lost meanwhile: %(count)s",
}
#: What is left to say of those that have no line of their own.
_MORE = {
    "queue_without_consumer": "queues without a worker besides these: %d (chervil status)",
    "unknown_task": "names that no worker knows besides these: %d (chervil status)",
    "task_dead": "tasks that are DEAD besides these, as their attempts were lost: %d (chervil list dead)",
    "task_rejected": "tasks that are DEAD besides these, as they were rejected: %d (chervil list dead)",
    "task_parked": "names of tasks that are DEAD besides these: %d (chervil list dead)",
    "session_lost": "workers that did not come back besides these: %d",
}


#: Details that are told with their noun.
_COUNTED = {"ready": "task", "count": "task", "attempts": "attempt"}


def log_events(events: list[tuple[str, dict[str, Any]]]) -> None:
    """Writes the lines of what happened in one turn of the loop."""
    told: Counter[str] = Counter()
    for event, details in events:
        told[event] += 1
        if told[event] <= TOLD_MAX:
            _log(event, details)
    for event, count in told.items():
        if count > TOLD_MAX:
            log.warning(_MORE.get(event, f"{event} besides these: %d"), count - TOLD_MAX)


def _log(event: str, details: dict[str, Any]) -> None:
    text = _EVENTS.get(event)
    if text is None:
        log.info("%s %s", event, details)
        return
    words = dict(details)
    if "id" in details:
        words["id"] = to_text(details["id"])
    for key, noun in _COUNTED.items():
        if key in details:
            words[key] = f"1 {noun}" if details[key] == 1 else f"{details[key]} {noun}s"
    log.warning(text, words)
