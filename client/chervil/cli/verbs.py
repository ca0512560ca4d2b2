"""Every verb of the command line: where its command lives, and its line in `chervil --help`.

The table holds strings because a verb's module is imported only when that verb runs: `chervil --help`
and `chervil health` load neither the worker nor the broker. It is also the only place where `chervil`
names the other two packages.
"""

from typing import NamedTuple


class Verb(NamedTuple):
    """A verb: `target` is "module:attribute" of a click command, `help` that command's short help."""

    target: str
    help: str


VERBS: dict[str, Verb] = {
    "dev": Verb("chervil.cli.dev:dev", "Run broker and worker here, reloading on changes."),
    "demo": Verb("chervil.cli.demo:demo", "See it work: real tasks, nothing to set up."),
    "broker": Verb("chervil_broker.cli:broker", "Start a broker."),
    "worker": Verb("chervil_worker.cli:worker", "Run a worker."),
    "call": Verb("chervil.cli.call:call", "Send one task, and wait for its result if asked."),
    "result": Verb("chervil.cli.result:result", "Show what came of a task."),
    "why": Verb("chervil.cli.why:why", "Tell the life of a task, and what it waits for."),
    "list": Verb("chervil.cli.listing:listing", "List dead letters, queues or workers."),
    "retry": Verb("chervil.cli.retry:retry", "Run tasks again that did not succeed."),
    "revoke": Verb("chervil.cli.revoke:revoke", "Call tasks off."),
    "forget": Verb("chervil.cli.forget:forget", "Drop ended tasks and dead letters."),
    "status": Verb("chervil.cli.status:status", "Show queues, workers and warnings."),
    "health": Verb("chervil.cli.health:health", "Exit 0 if the broker answers, 69 if not."),
    "purge": Verb("chervil.cli.purge:purge", "Throw away the tasks that wait."),
    "report": Verb("chervil.cli.report:report", "Show versions, settings and broker, secrets masked."),
    "completion": Verb(
        "chervil.cli.completion:completion", "Print the script that completes verbs and options."
    ),
}
