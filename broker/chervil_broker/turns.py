"""Peers take turns: what a turn may cost, and requests that are too long for one.

Requests of many ids are taken part by part: others get their turns, and answers leave, in between. To
the engine each part is a request of its own; what it answers to them is one answer to the client.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from chervil.protocol import Message, WireId
from chervil.protocol.messages import Error, Forget, Ok, Query, Rerun, Revoke, Status, Watch

if TYPE_CHECKING:
    from chervil_broker.peer import Peer

OfIds = TypeVar("OfIds", Query, Watch, Forget, Revoke, Rerun)

#: What a peer's messages may cost before what else it has sent waits for the next turn of the loop, in
#: rows: a row that is published or completed costs one. So nobody holds up the others, and answers are
#: not piled up faster than they leave. Measured: 1 to 4 ms.
TURN_ROWS = 1_024
#: What a message costs besides its rows. Measured: 5 us a CREDIT, 2 us a row that is published or completed.
MESSAGE_COST = 4
#: Ids of a peer's first part. Each may be answered with a whole result: a part is what waits for a peer at
#: most before it is seen whether the peer reads. While it keeps up each turn may have twice as many.
PART_IDS_FIRST = 4
#: And at most. Fewer would cost more: a part takes 50 us besides its ids.
PART_IDS_MAX = 32
#: What an id costs whose task goes from one place to another. Measured: 3 us a REVOKE, 12 us a RERUN.
CHANGE_COST = 4


class Answer:
    """What has become of a request that was taken apart."""

    __slots__ = ("left", "refused", "value", "whole")

    def __init__(self) -> None:
        #: Parts that were taken and not answered, and whether no more are to come.
        self.left = 0
        self.whole = False
        #: A part was refused: that was the answer.
        self.refused = False
        #: The sum of the OKs so far.
        self.value = 0

    def is_last(self) -> bool:
        """Counts an answer; whether it is the last."""
        self.left -= 1
        return self.whole and not self.left


def split(message: OfIds, ids: list[WireId], peer: "Peer") -> Iterator[OfIds]:
    """The message as messages of some of these ids, in order: as many as its peer's parts have just then."""
    answer = peer.parts[message.request] = Answer()
    at = 0
    while not answer.whole:
        part = ids[at : at + peer.part_ids]
        at += len(part)
        answer.left += 1
        answer.whole = at == len(ids)
        yield message._replace(ids=part)


def join(answers: dict[int, Answer], message: Message) -> Message | None:
    """A part's answer as its client is to see it; None where a later one will tell it.

    `answers` are those of its client's requests that were taken apart, by request. A part that is refused
    ends its request: no more are taken, and what the others say is not told.
    """
    if not isinstance(message, Status | Ok | Error) or message.request is None:
        return message
    answer = answers.get(message.request)
    if answer is None or (isinstance(message, Status) and message.more):
        return message
    if isinstance(message, Error):
        answer.whole = True
    last = answer.is_last()
    if last:
        del answers[message.request]
    if answer.refused:
        return None
    if isinstance(message, Error):
        answer.refused = True
        return message
    if isinstance(message, Status):
        return message if last else message._replace(more=True)
    answer.value += message.value or 0
    return message._replace(value=answer.value) if last else None
