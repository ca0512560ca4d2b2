"""A program that publishes: `python -m tests.machines.producer TASK SECONDS COUNT QUEUE...`.

It publishes a task to each queue in turn, waiting so long after each round: COUNT rounds or, where that is
0, until it is told to stop. Each is confirmed before the next one is published, or it is not; its id with
what came of it is a line of output. What was not confirmed is not published again.
"""

import itertools
import os
import signal
import sys
import threading

from chervil.exceptions import OperationalError, PublishUnconfirmed
from tests.machines.tasks import app


def main() -> None:
    _, name, seconds, count, *queues = sys.argv
    task = app.tasks[f"tests.machines.tasks.{name}"]
    told_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_stop.set())
    for number in range(int(count)) if int(count) else itertools.count():
        for queue in queues:
            id_ = f"{queue}-{os.getpid()}-{number}"
            try:
                task.apply_async(task_id=id_, queue=queue)
            except PublishUnconfirmed:
                print(f"unconfirmed {id_}", flush=True)
            except OperationalError as error:
                print(f"failed {id_}: {error}", flush=True)
            else:
                print(f"confirmed {id_}", flush=True)
        if told_to_stop.wait(float(seconds)):
            break
    print("done", flush=True)


if __name__ == "__main__":
    main()
