"""What the engine wants done: gathered by its commands, handed over by `Engine.pump`."""

from dataclasses import dataclass, field
from typing import Any

from chervil.protocol import Message
from chervil_broker.engine.task import Task, View


@dataclass(slots=True)
class Effects:
    """What piled up since the last pump. What is meant for a session that is gone is to be dropped.

    Journal records, in the order in which things happened; lists are those that came in, not copies:

    ("tick", now, wall)               the clocks as they were for the records that follow
    ("publish", rows)                 rows as published, without those that were refused
    ("lease", session, tasks)         Tasks granted as one DELIVER batch, with their lease numbers
    ("started", session, rows)        [id, lease] rows that were in force
    ("complete", session, rows)       completion rows that were applied
    ("close", session)                every lease of the session goes back, STARTED ones charged
    ("due", ids)                      SCHEDULED or RETRY -> QUEUED, at the end of their queues
    ("expire", ids), ("revoke", ids)  -> EXPIRED, -> REVOKED
    ("evict", ids)                    the results were dropped for room
    ("forget", ids)                   the records are gone: the ids are UNKNOWN
    """

    #: (session, Confirm, Ok or Completed).
    replies: list[tuple[int, Message]] = field(default_factory=list)
    #: (session, tasks): one DELIVER batch each. Valid until the next command.
    grants: list[tuple[int, list[Task]]] = field(default_factory=list)
    #: (session, request, rows): STATUS, or a RESULT push where the request is None.
    statuses: list[tuple[int, int | None, list[View]]] = field(default_factory=list)
    records: list[tuple[Any, ...]] = field(default_factory=list)
    #: Handles that nothing will ask for again, each once. Encode this pump's frames before freeing.
    freed: list[int] = field(default_factory=list)
    #: (name, fields) for the log.
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    #: (session, rows [id, lease, signal?]): CANCEL, to leave before the replies.
    cancels: list[tuple[int, list[list[Any]]]] = field(default_factory=list)
    #: Sessions that the engine closed itself when their grace was over.
    ended: list[int] = field(default_factory=list)
