"""Peers take turns: what a turn may cost, and requests that are too long for one.

Requests of many ids are taken part by part: others get their turns, and answers leave, in between. To
the engine each part is a request of its own; what it answers to them is one answer to the client.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from chervil.protocol import Code, Message, RemoteProtocolError, WireId
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
#: What an id costs whose task goes from one place to another. Measured: 3 us a REVOKE, 12 us a RERUN.
CHANGE_COST = 4
#: Bytes of a result that cost as much as a row: a turn answers with 1 MiB, or with one result that is longer.
BYTES_A_ROW = 1_024


class Part(list[WireId]):
    """Ids of a request that are taken in one turn, and what they cost."""

    __slots__ = ("cost",)

    def __init__(self, ids: Iterable[WireId], cost: int) -> None:
        super().__init__(ids)
        self.cost = cost


#: Takes ids from a place in a list on: as many as a turn bears.
Measure = Callable[[list[WireId], int], Part]


def changes(ids: list[WireId], at: int) -> Part:
    """Ids whose tasks go from one place to another."""
    part = ids[at : at + TURN_ROWS // CHANGE_COST]
    return Part(part, CHANGE_COST * len(part))


def answers(result_size: Callable[[WireId], int]) -> Measure:
    """Ids that are answered with all there is to tell; `result_size` says how many bytes that is."""

    def measure(ids: list[WireId], at: int) -> Part:
        cost, end = 0, at
        while end < len(ids) and cost < TURN_ROWS:
            cost += 1 + result_size(ids[end]) // BYTES_A_ROW
            end += 1
        return Part(ids[at:end], cost)

    return measure


class Answer:
    """What has become of a request that was taken apart."""

    __slots__ = ("left", "refused", "value", "whole")

    def __init__(self) -> None:
        #: Parts that were taken and not answered, the first among them, and whether no more are to come.
        self.left = 1
        self.whole = False
        #: A part was refused: that was the answer.
        self.refused = False
        #: The sum of the OKs so far.
        self.value = 0

    def is_last(self) -> bool:
        """Counts an answer; whether it is the last."""
        self.left -= 1
        return self.whole and not self.left


def first_part(message: OfIds, peer: "Peer", measure: Measure) -> Part:
    """Those of a request's ids, each once, that are to be taken now; its peer takes the others next.

    Raises RemoteProtocolError where the request's number is another's that is not answered yet.
    """
    if isinstance(message.ids, Part):
        return message.ids
    if message.request in peer.parts:
        raise RemoteProtocolError(
            Code.BAD_FIELD, f"request {message.request} is not answered yet: no other can have its number"
        )
    ids = list(dict.fromkeys(message.ids))
    part = measure(ids, 0)
    if len(part) < len(ids):
        answer = peer.parts[message.request] = Answer()
        peer.take_next(_others(message, ids, len(part), answer, measure))
    return part


def _others(message: OfIds, ids: list[WireId], at: int, answer: Answer, measure: Measure) -> Iterator[OfIds]:
    """The message as messages of what is left of its ids, each when its turn has come."""
    while not answer.whole:
        part = measure(ids, at)
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
