"""What the engine wants done: gathered by its commands, handed over by `Engine.pump`."""

from dataclasses import dataclass, field
from typing import Any

from chervil.protocol import Message, WireId
from chervil_broker.engine.task import Task, View


@dataclass(slots=True)
class Effects:
    """What piled up since the last pump. What is meant for a session that is gone is to be dropped.

    `published`, `grants`, `completed`, `changed`, `evicted`, `forgotten` and `revoked_ids` are what a journal
    must know: each task whose state is not what it was at the last pump is in one of them at least. They
    say what happened, not in which order: a task in `changed` is to be taken as it is now, whatever the
    others say, and one that the engine does not hold any more, or holds as another object, is over.
    """

    #: (session, Confirm, Ok or Completed).
    replies: list[tuple[int, Message]] = field(default_factory=list)
    #: (session, tasks): one DELIVER batch each. Valid until the next command.
    grants: list[tuple[int, list[Task]]] = field(default_factory=list)
    #: (session, request, rows): STATUS, or a RESULT push where the request is None.
    statuses: list[tuple[int, int | None, list[View]]] = field(default_factory=list)
    #: (broker time, (who published them, wall clock in ms), tasks): as they came, one PUBLISH each.
    published: list[tuple[int, tuple[str, int], list[Task]]] = field(default_factory=list)
    #: (session, its sequence, tasks that succeeded): one COMPLETE each.
    completed: list[tuple[int, int, list[Task]]] = field(default_factory=list)
    #: Tasks that changed in any other way, once each. A dictionary, as a set has no order.
    changed: dict[Task, None] = field(default_factory=dict)
    #: Ids whose results and bodies were dropped for room.
    evicted: list[WireId] = field(default_factory=list)
    #: (broker time, ids): the records are gone, and the ids are remembered.
    forgotten: list[tuple[int, list[WireId]]] = field(default_factory=list)
    #: (who, ids): nothing is known of them, and what is published under them is to be REVOKED.
    revoked_ids: list[tuple[str, list[WireId]]] = field(default_factory=list)
    #: Handles that nothing will ask for again, each once. Encode this pump's frames before freeing.
    freed: list[int] = field(default_factory=list)
    #: (name, fields) for the log.
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    #: (session, rows [id, lease, signal?]): CANCEL, to leave before the replies.
    cancels: list[tuple[int, list[list[Any]]]] = field(default_factory=list)
    #: Sessions that the engine closed itself when their grace was over.
    ended: list[int] = field(default_factory=list)
