"""Publishing: the same rows until they are confirmed, refused, or out of time."""

from collections.abc import Callable, Iterable

from chervil.conversation import (
    PAUSE_FIRST,
    PAUSE_MOST,
    ClientClosed,
    DirectLine,
    L,
    LineBroken,
    Lines,
    check_open,
    opening,
    reply,
)
from chervil.exceptions import (
    AccessRefused,
    ChervilError,
    OperationalError,
    PublishRefused,
    PublishUnconfirmed,
)
from chervil.exchange import WINDOW, Reply
from chervil.protocol import Code, LocalProtocolError, RequestRefused, WireId, to_text
from chervil.protocol.messages import Confirm
from chervil.protocol.rows import TaskRow, batches, weight

#: Frames sent ahead of their confirms: enough to keep the broker busy, at most 4 MiB under way.
PIPELINE = 16

#: What a broker whose window is closed would say.
_NO_ROOM = (
    "it takes no more tasks for now; start more workers, purge what is not needed, or raise its --max-memory"
)
_WHERE_TO_LOOK = "see which queues fill it, and whether they have a worker: chervil status"


class Publication:
    """The rows of one publish, and what the broker said of each.

    `run` returns when there is nothing more to be done about them; `error` then says how that went. Rows
    whose connection broke are sent again, which makes no second task.
    """

    #: What a full broker said of the rows that are held.
    _full = _NO_ROOM
    #: Whether a whole frame was handed over: the broker may have stored it.
    _sent = False
    #: When waiting for room began.
    _blocked_at: float | None = None
    #: Why the rest was not confirmed: what to raise where nothing was sent, and the reason by itself.
    _failure: OperationalError | None = None
    _reason = ""

    def __init__(
        self, rows: list[TaskRow], wait: bool = True, on_full: Callable[[], None] | None = None
    ) -> None:
        """`wait`: a full broker is waited for, until the deadline; `on_full` is called when that begins."""
        self._wait = wait
        self._on_full = on_full
        #: Frames that are not confirmed yet, in order.
        self._frames = [rows] if len(rows) == 1 else list(_frames(rows))
        #: Rows that a full broker refused and that are to be sent again.
        self._held: list[TaskRow] = []
        #: (code, message) by id, of rows that were not stored.
        self.refused: dict[WireId, tuple[str, str]] = {}
        #: Whether not all of them were confirmed.
        self.failed = False

    async def run(self, lines: Lines[L], end: float, error: Exception | None = None) -> None:
        """Publishes before the deadline `end`; raises nothing of the broker's or the connection's.

        `error` is how a first attempt ended that was made elsewhere.
        """
        pause = PAUSE_FIRST
        while True:
            if error is None:
                error = await self._attempt(lines, end)
                if error is None:
                    return
            if isinstance(error, OperationalError):
                failure = error
                again = self._sent or self._blocked_at is not None
                again = again and not isinstance(error, AccessRefused | ClientClosed)
            else:
                lines.renew()
                failure = OperationalError(f"nothing was published: {error}")
                again = not isinstance(error, LineBroken) or error.again
            if not again or lines.now() + pause >= end:
                self._failure, self._reason, self.failed = failure, str(error), True
                self._give_up(lines.now())
                return
            error = None
            await lines.pause(pause)
            pause = min(2 * pause, PAUSE_MOST)

    def run_directly(self, line: DirectLine, end: float) -> bool:
        """Publishes one frame where nothing stands in the way; whether that was all there was to do.

        The case that nearly every `delay` is (measured: the coroutines of `run` cost a tenth of the call).
        What this leaves undone is for `run`, and so is the LineBroken or TimeoutError that it raises.
        """
        exchange = line.exchange
        if len(self._frames) != 1 or exchange.window is not None:
            return False
        try:
            request, data = exchange.publish(self._frames[0])
        except LocalProtocolError:
            return False
        line.send_now(data, end)
        self._sent = True
        try:
            confirm = line.reply_now(request, end)
        except RequestRefused as error:
            self._refused(error)
        else:
            self._confirmed(confirm)
        return not self._held

    def error(self, rows: Iterable[TaskRow] | None = None) -> ChervilError | None:
        """What became of rows (all of them unless given): None where every one is confirmed.

        PublishRefused where some were not stored and the rest is confirmed, PublishUnconfirmed where that is
        not known of some, OperationalError where nothing was sent at all.
        """
        if not self.failed:
            return None
        mine = None if rows is None else {row[0] for row in rows}
        refused = [id_ for id_ in self.refused if mine is None or id_ in mine]
        refused_ids = [to_text(id_) for id_ in refused]
        open_ids = [
            to_text(row[0]) for frame in self._frames for row in frame if mine is None or row[0] in mine
        ]
        if open_ids and self._failure is not None:
            if self._sent:
                return PublishUnconfirmed(open_ids, self._reason, refused_ids)
            # A copy: several callers may be told the same, each with a traceback of its own.
            return type(self._failure)(*self._failure.args)
        if refused:
            code, message = self.refused[refused[0]]
            if code == Code.FORBIDDEN:
                return AccessRefused(f"the broker does not allow this client to publish: {message}")
            return PublishRefused(refused_ids, code, message)
        return None

    async def _attempt(self, lines: Lines[L], end: float) -> Exception | None:
        """Does what it can on one line; returns why it ended early."""
        try:
            line = await lines.take(end)
        except OperationalError as error:
            return error
        try:
            await self._send(lines, line, end)
        except (LineBroken, TimeoutError) as error:
            lines.drop(line, error)
            return error
        except BaseException as error:
            lines.drop(line, error)
            raise
        lines.give(line)
        return None

    async def _send(self, lines: Lines[L], line: L, end: float) -> None:
        """Sends all frames that are not confirmed and waits for their confirms."""
        exchange = line.exchange
        frames = self._frames
        under_way: list[int] = []
        try:
            while frames or self._held:
                if not frames:
                    if not await self._room_again(lines, line, end):
                        return
                    frames.extend(_frames(self._held))
                    self._held = []
                while len(under_way) < len(frames) and len(under_way) < PIPELINE:
                    if exchange.window is not None and self._wait and not exchange.window_open:
                        break
                    try:
                        request, data = exchange.publish(frames[len(under_way)])
                    except LocalProtocolError as error:
                        check_open(exchange)
                        self._take_out(len(under_way), error)
                        continue
                    under_way.append(request)
                    await line.send(data, end)
                    self._sent = True
                if under_way:
                    try:
                        confirm = await reply(line, under_way[0], end)
                    except RequestRefused as error:
                        self._refused(error)
                    else:
                        self._confirmed(confirm)
                    del under_way[0]
                elif frames and not await self._opened(lines, line, end):
                    return
        except BaseException:
            for request in under_way:
                exchange.abandon(request)
            raise

    def _confirmed(self, confirm: Reply) -> None:
        """The first frame was confirmed, but for some of its rows."""
        assert isinstance(confirm, Confirm)
        rows = self._frames.pop(0)
        if confirm.exceptions:
            for index, code, message in confirm.exceptions:
                self._refuse(rows[index], code, message)

    def _refused(self, error: RequestRefused) -> None:
        """The first frame was refused."""
        for row in self._frames.pop(0):
            self._refuse(row, error.code, error.message)

    def _take_out(self, at: int, error: LocalProtocolError) -> None:
        """Refuses a frame that cannot be sent; the rows of a longer one get a frame each first."""
        rows = self._frames[at]
        if len(rows) == 1:
            self._refuse(rows[0], error.code, error.message)
            del self._frames[at]
        else:
            self._frames[at : at + 1] = [[row] for row in rows]

    def _refuse(self, row: TaskRow, code: str, message: str) -> None:
        # A duplicate was confirmed before: by an attempt of ours, or by whoever chose the id.
        if code == Code.DUPLICATE:
            return
        if code == Code.FULL and self._wait:
            self._full = message
            self._held.append(row)
        else:
            self.refused[row[0]] = (code, message)
            self.failed = True

    async def _opened(self, lines: Lines[L], line: L, end: float) -> bool:
        """Waits for the window; where it stays closed until the deadline, gives up on what is left."""
        self._block(lines.now())
        try:
            await opening(line, end)
        except TimeoutError:
            self._held += [row for frame in self._frames for row in frame]
            self._frames.clear()
            self._give_up(lines.now())
            return False
        return True

    async def _room_again(self, lines: Lines[L], line: L, end: float) -> bool:
        """Waits until sending again what a full broker refused makes sense; whether it ever does."""
        if not line.exchange.window_open:
            return await self._opened(lines, line, end)
        self._block(lines.now())
        until = lines.now() + PAUSE_MOST
        if until >= end:
            self._give_up(lines.now())
            return False
        try:
            while line.exchange.window_open:
                check_open(line.exchange)
                await line.news(WINDOW, until)
        except TimeoutError:
            return True
        return await self._opened(lines, line, end)

    def _block(self, now: float) -> None:
        """Room is waited for from now on, if it was not before."""
        if self._blocked_at is None:
            self._blocked_at = now
            if self._on_full is not None:
                self._on_full()

    def _give_up(self, now: float) -> None:
        """What is held for want of room is refused."""
        if self._held:
            waited = 0.0 if self._blocked_at is None else now - self._blocked_at
            message = (
                f"the broker is full, and {waited:.1f} s of waiting made no room: {self._full}; "
                f"{_WHERE_TO_LOOK}"
            )
            for row in self._held:
                self.refused[row[0]] = (Code.FULL, message)
            self._held = []
            self.failed = True


def _frames(rows: list[TaskRow]) -> Iterable[list[TaskRow]]:
    return batches(rows, [weight(row[7], row[5], row[4]) for row in rows])
