"""The link's decisions, without I/O: what happened goes in with its time, what is to be done comes out.

Whoever drives it (the link, or a simulator) calls a method for each thing that happens, and then, once a
turn, in this order:

1. `looks` names slots to look into: take back all packets that the child has not read, read all that it has
   answered (`answered`), and say so with `looked`. Only then is it known what a child runs, and only then
   are tasks called off, reported as long, stopped or told of.
2. `kills`, `spawns` and `lines` are done and emptied; `hang_up` ends the connection.
3. `assign` gives packets for children; what a socket has no room for comes back by `refused`.
4. `flush` gives messages for the broker.
5. `next_look` is when `tick` is to be called, `exit_code` whether all this is over.

Times are nanoseconds of a clock that never goes back.

The session outlives its connection. While that is away children go on and completions are kept; after
GRACE_CLOSED_MS nothing new is begun any more, as another worker may have it by then.
"""

import logging
import signal
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from chervil.protocol import Message, Outcome, SubscribeOption, Verdict, WelcomeOption, to_text
from chervil.protocol.limits import BODY_DEFAULT, GRACE_CLOSED_MS, GRACE_SILENT_MS
from chervil.protocol.messages import Completed, Started, Subscribe, Welcome
from chervil.protocol.rows import DeliveryRow
from chervil_worker.endings import Mark, Why, after_death, describe, in_vain, revoked, signal_of
from chervil_worker.log import Line
from chervil_worker.outbox import Outbox
from chervil_worker.resuming import inventory, resume
from chervil_worker.slots import Slots
from chervil_worker.tally import Tally
from chervil_worker.tasks import Task, from_rows
from chervil_worker.terms import Terms

#: When the connection has been away for so long, nothing new is begun: its leases may have gone back.
HOLD_NS = GRACE_CLOSED_MS * 1_000_000

#: How long a worker that was told to stop, and whose tasks are done, waits for a broker that is away to
#: tell it so: after that even a broker that had not noticed has handed the tasks out again.
STOP_WAIT_NS = GRACE_SILENT_MS * 1_000_000

#: How long a worker that is cut off, or whose nursery died, may take to the end of all children, the
#: broker's answers and, if the broker is away, its return: all take milliseconds, unless something is wrong.
LAST_WORDS_NS = 2_000_000_000

#: Exit codes: stopped with all tasks done; stopped otherwise.
DONE, CUT_OFF = 0, 1


class Kill(NamedTuple):
    """A signal for the process group of a slot's child."""

    slot: int
    signal: int


class Spawn(NamedTuple):
    """A new child for a slot, after a wait."""

    slot: int
    delay_ns: int


class Machine:
    """One worker's link: the slots, what is to be told, and the session that both belong to."""

    def __init__(
        self,
        count: int,
        queues: list[str],
        tasks: list[str],
        terms: Mapping[str, Terms],
        process_id: int,
    ) -> None:
        """`terms` are those of the tasks whose terms are not plain, by name."""
        self.slots = Slots(count)
        self.outbox = Outbox()
        self._count = count
        self._queues = queues
        self._tasks = tasks
        self._terms = terms
        self._process_id = process_id
        # What is to be done.
        self.looks: set[int] = set()
        self.kills: list[Kill] = []
        self.spawns: list[Spawn] = []
        self.lines: list[Line] = []
        #: Why the connection is to be ended.
        self.hang_up: str | None = None
        # The session.
        #: Its id and secret, for HELLO.
        self.credentials: list[bytes] | None = None
        self._instance: bytes | None = None
        #: The last session, as `Slots.session` counts them, that a broker has forgotten with its tasks.
        self._forgotten_session = -1
        #: Whether the connection is there, and we have said what is to be said first.
        self._open = False
        #: The WELCOME that is still to be answered; the answer.
        self._welcome: Welcome | None = None
        self._introduction: list[Message] = []
        self._hold_at: int | None = None
        self._held = False
        #: Whether the broker keeps its memory for itself, and has stopped: nobody is left to be told.
        self._forgetful = self._forgotten = False
        self._body_limit = BODY_DEFAULT
        self._requests = 0
        #: Request -> (slot, task): what is being claimed.
        self._claims: dict[int, tuple[int, Task]] = {}
        #: Those whose claim was granted in this turn.
        self._granted: list[tuple[int, Task]] = []
        #: Number -> signal: tasks that were called off while a child had them, until that was looked into.
        self._called_off: dict[int, int | None] = {}
        # The end.
        self._code = DONE
        self._cutting = False
        self._wait_until: int | None = None
        self._last_words_until: int | None = None
        self._gave_up = False
        #: The nursery is dead and its children are as good as dead: there is nothing to look into.
        self._childless = False
        #: Tasks that finished for nothing: their session was over.
        self.orphans = Tally()

    # The broker

    def welcomed(self, welcome: Welcome) -> None:
        """The broker has answered our HELLO."""
        self._welcome = welcome
        options = welcome.options or {}
        self._body_limit = options.get(WelcomeOption.BODY_LIMIT, BODY_DEFAULT)
        self._forgetful = options.get(WelcomeOption.DURABILITY) == "memory"
        self._forgotten = False
        self._hold_at, self._held, self._wait_until = None, False, None
        self._look_everywhere()

    def forsake(self) -> None:
        """The broker will not have this session again, or it is not worth it: the next one begins anew."""
        self.credentials = None

    def broker_stops(self) -> None:
        """The broker has said that it stops; `lost` follows."""
        self._forgotten = self._forgetful

    def lost(self, now: int) -> None:
        """The connection is gone; the session may be taken up again."""
        self._open = False
        self._welcome = None
        self._introduction = []
        self.hang_up = None
        self._claims.clear()
        self._granted.clear()
        self.slots.new_connection()
        self._hold_at = now + HOLD_NS

    def delivered(self, rows: list[DeliveryRow], now: int) -> None:
        """The broker has delivered tasks."""
        if self.slots.delivered + len(rows) > self.outbox.allowed:
            # They are not in any inventory, so the broker has them back when the session is resumed.
            self.hang_up = "the broker delivers more than it was given credit for"
            return
        self.slots.deliver(from_rows(rows, self._terms, self._body_limit, now))

    def completed(self, message: Completed) -> None:
        """The broker has answered a COMPLETE."""
        for row, verdict in self.outbox.completed(message):
            if verdict == Verdict.STALE:
                outcome = Outcome(row[2]).name
                self._say(
                    logging.WARNING,
                    f"a completion of [{to_text(row[0])}] ({outcome}) was not applied: its lease is gone, as "
                    "another worker has the task or it has ended (chervil why)",
                )

    def cancelled(self, rows: list[list[Any]]) -> None:
        """The broker wants these no longer: [id, lease, signal?] each."""
        signals = {(row[0], row[1]): row[2] for row in rows}
        unstarted = {task.number for task in self.slots.unstarted() if (task.id, task.lease) in signals}
        self._revoke(unstarted)
        for index, task in self.slots.sent():
            key = (task.id, task.lease)
            if key in signals and task.session == self.slots.session:
                self._called_off[task.number] = signals[key]
                self.looks.add(index)

    def ok(self, request: int, value: int | None) -> None:
        """The broker has done what a request asked. For a claim: `value` is 1 where the lease is in force."""
        claim = self._claims.pop(request, None)
        if claim is None:
            return
        if value:
            self._granted.append(claim)
        else:
            self.slots.withdraw({claim[1].number})

    # The children

    def ready(self, index: int) -> None:
        """A slot's child can take tasks."""
        self.slots.ready(index)

    def answering(self, index: int, number: int) -> bool:
        """Part of a child's answer to a packet has come; whether that is what it runs."""
        slot = self.slots[index]
        if slot.head is None or slot.head.number != number:
            return False
        slot.answering = True
        return True

    def condemned(self, index: int, why: Why, now: int) -> None:
        """A child is to be killed for what it has sent."""
        head = self.slots[index].head
        self._kill(index, Mark(why, signal.SIGKILL, 0 if head is None else head.number), now)

    def answered(self, index: int, number: int, parts: list[Any], now: int) -> bool:
        """A child has answered a packet with [outcome, codec?, body?, options?]; whether it has others."""
        slots = self.slots
        task = slots.answered(index, number, now)
        if task is None:  # user code is free to fork, or to write where it should not
            self._say(
                logging.ERROR,
                "an answer that was not asked for, or came before, is ignored "
                f"(slot {index}, packet {number})",
            )
            return True
        if task.session == slots.session:
            self.outbox.answered(task, parts)
        else:
            self._in_vain(task, Outcome(parts[0]).name)
        return bool(slots.with_child[index])

    def looked(self, index: int, unread: Collection[int], now: int) -> None:
        """A slot was looked into: its answers are read, the packets `unread` are ours again."""
        slot = self.slots[index]
        was_long = slot.long
        head = self.slots.took_back(index, unread, now)
        if self._called_off:
            self._revoke(self._called_off)
        if head is None:
            return
        if slot.long and not was_long and self._is_ours(head):
            self.outbox.started(head)
        number = self._called_off.pop(head.number, None)
        if self._cutting:
            self._kill(index, Mark(Why.STOPPED, signal.SIGKILL, head.number), now)
        elif slot.over_limit(now):
            self._kill(index, Mark(Why.TIME_LIMIT, signal.SIGKILL, head.number), now)
        elif slot.outlived(now):
            self._kill(index, Mark(Why.REVOKED, signal.SIGKILL, head.number), now)
        elif number is not None and not slot.answering:
            self._kill(index, Mark(Why.REVOKED, number, head.number), now)

    def exited(self, index: int, pid: int, status: int | None, unread: Collection[int], now: int) -> None:
        """A child has ended, and all that it answered is read; `unread` are the packets that it left.

        `status` is as waitpid gives it, None when the nursery has died and nobody knows; pid 0 is a child
        that could not be forked.
        """
        death = self.slots.died(index, unread, now)
        if status is None:
            how = "the worker's nursery died"
        elif pid:
            how = describe(status, pid, death.mark)
        else:
            how = "it could not be forked"
        for task in death.lost:
            if self._is_ours(task):
                parts, line = after_death(task, death.mark, how, signal_of(status))
                self.outbox.complete(task, *parts)
                self.lines.append(line)
            else:
                self._in_vain(task, how)
        if not death.lost and death.mark is None:
            self._say(logging.WARNING, f"a child died without a task: {how}")
        if self.slots.draining:
            return
        if death.delay_ns:
            seconds = death.delay_ns // 10**9
            self._say(logging.WARNING, f"it is replaced in {seconds} s, as it had taken no task at all")
        self.spawns.append(Spawn(index, death.delay_ns))

    def refused(self, index: int, tasks: Collection[Task]) -> None:
        """The slot's socket had no room for these, the last ones assigned to it."""
        self.slots.refused(index, tasks)

    @property
    def choked(self) -> bool:
        """Whether children's answers are better left in their sockets: too much is untold already.

        Not at the end: what runs then is all that will be answered, and it is waited for.
        """
        return self.outbox.full and not self.slots.draining

    # Time

    def tick(self, now: int) -> None:
        """`next_look` has come, or not: it does no harm."""
        if not self._childless:
            self.looks.update(self.slots.overdue(now))
        if self._hold_at is not None and now >= self._hold_at:
            self._hold_at, self._held = None, True
            self._look_everywhere()
        for until in (self._wait_until, self._last_words_until):
            if until is not None and now >= until:
                self._give_up()

    @property
    def next_look(self) -> int | None:
        """When something is next due if nothing happens; None: never."""
        check = None if self._childless else self.slots.next_check()
        times = (check, self._hold_at, self._wait_until, self._last_words_until)
        return min((time for time in times if time is not None), default=None)

    # The end

    def drain(self) -> None:
        """Told to stop: nothing new is begun, what no child has begun goes back."""
        self.slots.drain()
        self._look_everywhere()

    def cut_off(self, now: int) -> None:
        """Told so twice: what runs is killed, and goes back uncharged."""
        self._cutting = True
        self._code = CUT_OFF
        self.drain()
        self._last_words_until = now + LAST_WORDS_NS

    def nursery_died(self, now: int) -> None:
        """No process can be made any more. Whoever drives this kills the children, and tells of each end.

        Which of them died first, and took the others along, cannot be known. So every task that ran is
        charged an attempt: were none, a task that kills the whole tree would do so for ever. A bystander
        has two attempts left.
        """
        self._say(
            logging.ERROR,
            "the nursery died: the process that has imported the app and forks those that run tasks. They "
            "die with it, and each task that ran counts as lost; no process can be made any more; stopping",
        )
        self._childless = True
        self._code = CUT_OFF
        self.slots.drain()
        self._last_words_until = now + LAST_WORDS_NS

    @property
    def exit_code(self) -> int | None:
        """The exit code once everything is done and told, or given up."""
        if self._gave_up:
            return CUT_OFF
        over = self.slots.draining and self.slots.idle and not self.outbox.unanswered
        return self._code if over else None

    # What follows

    def assign(self, now: int) -> list[tuple[int, list[Task]]]:
        """(slot, tasks) to send. Counts as sent; see `refused`."""
        self._called_off.clear()
        if self._welcome is not None:
            # Everything has been looked into, so what runs is known.
            self._introduction = self._introduce(self._welcome)
        if self._held or self.slots.draining:
            return []
        assigned = self.slots.assign(now)
        for slot, task in self._granted:
            # Unless the slot's child died since, or the task was called off.
            if self.slots.claiming(slot) is task:
                assigned.append((slot, [self.slots.claimed(slot, now)]))
        self._granted.clear()
        return assigned

    def flush(self, now: int) -> list[Message]:
        """The messages for the broker; none while it is away."""
        messages, self._introduction = self._introduction, []
        if self._open or self.slots.draining:
            for task in self.slots.surplus():
                if self._is_ours(task):
                    self.outbox.release(task)
        if not self._open:
            self.outbox.weigh()
            if self.slots.draining and self._wait_until is None and self.slots.idle:
                self._wait_until = now if self._forgotten else now + STOP_WAIT_NS
            return messages
        for index, task in self.slots.to_claim():
            request = self._new_request()
            self._claims[request] = (index, task)
            started = [task.id, task.lease, True] if task.terms.early else [task.id, task.lease]
            messages.append(Started([started], request))
        return messages + self.outbox.flush(self.slots.credit(), self.slots.capacity)

    def _introduce(self, welcome: Welcome) -> list[Message]:
        """What a connection begins with."""
        messages: list[Message] = []
        before = self.credentials
        if before is not None and welcome.resumed and welcome.session == before[0]:
            running = [task for _, task in self.slots.sent() if self._is_ours(task)]
            rows = inventory(self.slots.unstarted(), running, self.outbox.untold())
            messages += resume(rows, self.outbox.sequence, self._new_request)
            messages += self.outbox.resend()
            self._say(logging.WARNING, f"connected to the broker again: tasks kept: {len(rows)}")
        elif self._instance is not None:
            self._begin_anew(same_broker=welcome.instance == self._instance)
        self.credentials = [welcome.session, welcome.secret]
        self._instance = welcome.instance
        self._welcome = None
        self._open = True
        options = {
            int(SubscribeOption.CONCURRENCY): self._count,
            int(SubscribeOption.PROCESS_ID): self._process_id,
        }
        messages.append(Subscribe(self._new_request(), self._queues, self._tasks, options))
        return messages

    def _begin_anew(self, *, same_broker: bool) -> None:
        """The leases are gone: what was not begun is forgotten, what runs goes on for nothing."""
        untold = Tally(row[0] for row in self.outbox.untold())
        self.outbox = Outbox()
        if not same_broker:
            self._forgotten_session = self.slots.session
        forgotten = self.slots.new_session()
        running = self.slots.running
        self._say(logging.WARNING, "connected to the broker again")
        if not (untold or forgotten or running):
            return
        why = (
            "we were away for too long, or it found fault with it; it hands our tasks to others"
            if same_broker
            else "it was started anew and has forgotten its tasks (--memory)"
        )
        self._say(
            logging.WARNING,
            f"the broker did not keep this worker's session: {why}. Tasks that still run, and whose results "
            f"are dropped: {running}; tasks not begun, and dropped: {forgotten}; completions that it may "
            f"not have heard of: {untold}",
        )

    def _give_up(self) -> None:
        if not self._gave_up:
            self._gave_up = True
            if untold := Tally(row[0] for row in self.outbox.untold()):
                self._say(
                    logging.WARNING,
                    f"the broker did not hear of, or did not confirm, completions: {untold}; "
                    "it hands out again what it has not heard of",
                )

    def _revoke(self, numbers: Collection[int]) -> None:
        """Completes those of these tasks that no child has begun as called off."""
        for task in self.slots.withdraw(numbers):
            self.outbox.complete(task, *revoked(task))

    def _in_vain(self, task: Task, how: str) -> None:
        """A task came to its end, and its session was over: nobody is told but the log."""
        self.orphans.add(task.id)
        self.lines.append(in_vain(task, how, forgotten=task.session <= self._forgotten_session))

    def _kill(self, index: int, mark: Mark, now: int) -> None:
        """Sends a signal, unless the child is dying already or had it: who resumes hears CANCEL again."""
        slot = self.slots[index]
        if slot.mark is not None and (slot.mark.signal == signal.SIGKILL or slot.mark == mark):
            return
        slot.signalled(mark, now)
        self.kills.append(Kill(index, mark.signal))

    def _is_ours(self, task: Task) -> bool:
        """Whether a task's lease belongs to the present session."""
        return task.session == self.slots.session

    def _look_everywhere(self) -> None:
        self.looks.update(range(self._count))

    def _new_request(self) -> int:
        self._requests += 1
        return self._requests

    def _say(self, level: int, text: str) -> None:
        self.lines.append(Line(level, text))
