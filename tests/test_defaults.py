"""docs/defaults.md says what the code does."""

import re
from pathlib import Path

import pytest

from chervil.address import DEFAULT_URL
from chervil.cli import processes
from chervil.conf import Settings
from chervil.protocol import limits, vocabulary
from chervil.task import Task
from chervil_broker import peer, reports, sessions, strangers
from chervil_broker.engine import history
from chervil_broker.engine.state import CLOSED_PERCENT, FULL_PERCENT, EngineConfig
from chervil_broker.options import BrokerOptions
from chervil_worker import outbox, slot, slots

ROOT = Path(__file__).parent.parent


def table() -> dict[str, str]:
    text = (ROOT / "docs" / "defaults.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return {row[0]: row[1] for row in rows[2:]}


def number(what: str) -> float:
    match = re.match(r"\d+", table()[what])
    assert match is not None, what
    return float(match[0])


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("priority", Settings.task_default_priority),
        ("results are kept for", Settings.result_expires),
        ("a publish is confirmed or raises within", Settings.task_publish_timeout),
        ("a connection is made within", Settings.broker_connection_timeout),
        ("connections of one client at once", Settings.broker_pool_limit),
        ("retries", Task.max_retries),
        ("delay before a retry", Task.default_retry_delay),
        ("attempts lost before a task is DEAD", vocabulary.DELIVERY_LIMIT_DEFAULT),
        ("heartbeat", limits.HEARTBEAT_MS),
        ("a stranger says HELLO within", limits.PREAUTH_SECONDS),
        ("body of a task or result", BrokerOptions().body_limit),
        ("headers of a task", limits.HEADERS_MAX),
        ("sessions of workers are kept after a start of the broker for", limits.GRACE_SILENT_MS / 1000),
        ("a frame", limits.FRAME_BATCH),
        ("tasks in a frame", limits.ROWS_MAX),
        ("an id", limits.ID_MAX),
        ("a task, queue or client name", limits.NAME_MAX),
        ("a running task that was sent a signal to end it is killed after", slot.TERMINATE_GRACE_NS / 1e9),
        (
            "a task that runs when `chervil dev` restarts or stops its worker is cut off after",
            processes.STOP_SECONDS,
        ),
        ("a process of `chervil dev` that was told twice to stop is killed after", processes.KILL_SECONDS),
        ("a worker whose socket closed keeps its tasks for", limits.GRACE_CLOSED_MS),
        ("a worker that was silent keeps its tasks for", limits.GRACE_SILENT_MS),
        (
            "a task whose name no worker of its queue knows is parked after",
            EngineConfig(1, 1).park_unknown_ns / 1e9,
        ),
        ("publishers wait, and go on, at", CLOSED_PERCENT),
        ("publishes are refused over", FULL_PERCENT),
        ("ids of forgotten tasks that are remembered", BrokerOptions().dedup_ids),
        ("ids that were revoked before they were published", EngineConfig(1, 1).revoked_ids),
        ("arguments that a task's story shows", reports.BODY_MAX),
        ("events of a task's story", history.HISTORY_EVENTS_MAX),
        ("connections to a broker", BrokerOptions().max_connections),
        ("connections that have not said HELLO", strangers.PREAUTH_PEERS_MAX),
        ("sessions without a connection", sessions.SUSPENDED_MAX),
        ("leases of one worker", limits.INVENTORY_MAX),
        ("bodies that one worker is given in a turn", EngineConfig(1, 1).grant_bytes),
        ("completions of a worker that the broker has not answered", outbox.UNANSWERED_MAX),
        ("unsent bytes to one peer", peer.UNSENT_MAX),
        ("a peer takes something of what waits for it within", peer.SLOW_SECONDS),
        ("look-ahead of a worker's slot", slots.DEPTH_MAX),
    ],
)
def test_a_number_in_the_table_is_the_codes(what, value):
    assert number(what) == value


def test_the_words_in_the_table_are_the_codes():
    words = table()
    assert words["broker URL"] == f"`{DEFAULT_URL}`"
    assert words["queue"] == f"`{Settings.task_default_queue}`"
    assert words["serializer"] == f"`{Settings.task_serializer}`" == f"`{Settings.result_serializer}`"
    assert words["time zone of a naive eta"] == f"`{Settings.timezone}`"
