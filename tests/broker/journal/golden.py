"""A data folder of each release, that every later one opens: `python -m tests.broker.journal.golden` makes one.

It is made once for a version of the format, and never again: what a released broker wrote does not change.
"""

import base64
import json
import random
from pathlib import Path
from typing import Any

from chervil.protocol import Outcome, Stage, TaskOption
from chervil_broker.bodies import Bodies
from chervil_broker.engine.task import NO_HANDLE
from chervil_broker.journal.files import OSFiles
from chervil_broker.journal.layout import VERSION, pack_record, unpack_frame, unpack_records
from chervil_broker.journal.records import Open, pack
from chervil_broker.journal.replay import Replay
from chervil_broker.journal.spares import PAGE, Spares
from chervil_broker.journal.writer import Writer
from tests.broker.engine.rig import SECOND
from tests.broker.journal.recorded import INSTANCE, SALT, RecordedRig

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = "expected.json"
DELAY = {TaskOption.DELAY_MS.value: 60_000}


class GoldenRig(RecordedRig):
    """One that nobody compares with another."""

    def picture(self) -> None:
        return None

    def opening(self) -> bytes:
        return pack(Open(INSTANCE, self.boot, "always", self.now, self.wall, "1"))


def lived() -> RecordedRig:
    """A life with something of everything."""
    rig = GoldenRig(memory_limit=1 << 20, results_limit=1 << 20)
    worker = rig.worker("q", credit=9, name="worker@golden")
    names = ["done", "failed", "again", "running", "claimed", "dead", "lost", "back", "handed"]
    rig.publish(*names)
    tasks = {task.id: task for task in rig.lease()}
    rig.advance(SECOND)
    rig.engine.started(worker, [[id_, tasks[id_].lease, False] for id_ in ("running", "lost", "dead")], None)
    rig.engine.started(worker, [["claimed", tasks["claimed"].lease, True]], None)
    rig.pump()
    rig.advance(SECOND)
    rig.complete(
        worker,
        rig.outcome(tasks["done"], Outcome.SUCCESS),
        rig.outcome(tasks["failed"], Outcome.FAILURE, reason="ValueError: no"),
        rig.outcome(tasks["again"], Outcome.RETRY, {TaskOption.DELAY_MS.value: 30_000}, reason="later"),
        rig.outcome(tasks["dead"], Outcome.REJECT, reason="not for me"),
        rig.outcome(tasks["lost"], Outcome.LOST, reason="signal 9"),
        rig.outcome(tasks["back"], Outcome.RELEASE, body=False),
    )
    rig.engine.credit(worker, 0)
    rig.pump()
    rig.rotate()
    rig.publish("waiting", rig.row("first", priority=9), b"sixteen bytes id", rig.row("later", options=DELAY))
    rig.publish(*[rig.row(f"filler{n}", queue="other", size=300) for n in range(20)])
    rig.publish("called off")
    rig.engine.revoke(rig.publisher, 90, ["called off", "not yet known"], terminate=False, signal=15)
    rig.engine.purge(rig.publisher, 91, ["other"])
    rig.publish("waiting again", rig.row("first again", priority=9), rig.row("later again", options=DELAY))
    rig.pump()
    rig.engine.forget(rig.publisher, 92, ["filler0", "filler1"])
    rig.pump()
    return rig


def told(replay: Replay, bodies: Bodies) -> dict[str, Any]:
    """What a journal adds up to, as JSON."""
    vhosts = {
        name: {
            "tasks": {_text(id_): _task(task, bodies) for id_, task in sorted(known.tasks.items(), key=str)},
            "forgotten": sorted(map(_text, known.forgotten)),
            "revoked": {_text(id_): by for id_, by in known.revoked.items()},
        }
        for name, known in replay.vhosts.items()
    }
    sessions = {str(number): [known.name, known.sequence] for number, known in replay.sessions.items()}
    return {"now": replay.now, "wall": replay.wall, "vhosts": vhosts, "sessions": sessions}


def _task(task: Any, bodies: Bodies) -> dict[str, Any]:
    body = None if task.handle == NO_HANDLE else [_text(part) for part in bodies.task(task.handle)]
    result = None if task.result == NO_HANDLE else [_text(part) for part in bodies.result(task.result)]
    times = task.times and [task.times.due, task.times.due_wall, task.times.expires, task.times.expires_wall]
    past = task.unusual and [
        len(task.unusual.events),
        task.unusual.early,
        task.unusual.called_off is not None,
    ]
    ending = task.ending if task.stage >= Stage.SUCCESS else None
    return {
        "stage": Stage(task.stage).name, "name": task.name, "queue": task.queue, "priority": task.priority,
        "place": task.sequence, "lease": task.lease, "attempts": task.attempts, "redelivered": task.redelivered,
        "session": task.owner, "worker": task.worker, "published": list(task.origin), "times": times,
        "past": past, "ending": ending and list(ending), "body": body, "result": result,
    }  # fmt: skip


def _text(value: str | bytes | None) -> str | None:
    return "base64:" + base64.b64encode(value).decode() if isinstance(value, bytes) else value


def main() -> None:
    folder = GOLDEN / f"v{VERSION}"
    folder.mkdir(parents=True)
    rig = lived()
    files = OSFiles(folder)
    spares = Spares(files, first=PAGE, largest=2 * PAGE)
    frames = [unpack_records(unpack_frame(frame.data, 0, SALT)) for frame in rig.frames]
    opening = pack_record(frames[0][0])
    salts = random.Random(VERSION)
    writer = Writer(files, spares, INSTANCE, opening=lambda: opening, new_salt=lambda: salts.randbytes(8))
    writer.begin(None)
    for records in frames:
        writer.write([pack_record(record) for record in records])
    writer.mark()
    writer.close()
    bodies, replay = rig.replayed()
    (folder / EXPECTED).write_text(json.dumps(told(replay, bodies), indent=1) + "\n")


if __name__ == "__main__":
    main()
