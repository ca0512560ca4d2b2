"""Other limits for an engine that runs: what changes at once, and what the next pump sees to."""

from dataclasses import replace

from chervil_broker.engine.state import State


def set_limits(
    state: State, memory: int, results: int, tasks: int | None, more_memory: str | None = None
) -> None:
    """Puts limits in force, for everything that takes a part of them too.

    Results and dead letters that are over theirs go with the next pump, which trims what is over any way.
    """
    config = replace(
        state.config,
        memory_limit=memory,
        results_limit=results,
        tasks_limit=tasks,
        more_memory=more_memory or state.config.more_memory,
    )
    state.config = config
    state.results.limit = results
    state.parked.limit = config.dead_limit
    state.forgotten.resize(config.ids_limit)
    state.subscriptions.resize(memory)
    state.revoked_ids.resize(memory)
    # Windows that were closed under other limits say nothing under these.
    state.closed = False
    state.mark()
