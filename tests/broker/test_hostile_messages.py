"""Messages of every command with random fields, good and bad: the broker lives and keeps nothing of them."""

import asyncio
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chervil.protocol import Side
from chervil.protocol.messages import COMMANDS
from chervil_broker import broker as broker_module
from tests.broker.hostile import attack, bystander, frame
from tests.broker.talk import DEADLINE, house

#: How many conversations are tried; each is a connection with up to eight messages.
CONVERSATIONS = 300

numbers = st.sampled_from([0, 1, 2, 3, 9, 15, 64, 1000, 2**31, 2**63 - 1])
names = st.sampled_from(
    ["default", "other", "tasks.add", "../x", "\N{RIGHT-TO-LEFT OVERRIDE}", "dead", "workers"]
)
ids = st.sampled_from([b"a" * 16, b"b" * 16, b"c" * 16, "text", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"])
blobs = st.binary(max_size=40)
garbage = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=17),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 50) | st.text(max_size=3), inner)
    ),
    max_leaves=6,
)
options = st.dictionaries(
    st.sampled_from([1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 32, 34, 36, 38]),
    numbers | st.booleans() | names,
    max_size=3,
)
new_body = st.fixed_dictionaries({40: st.tuples(st.none(), st.just("json"), blobs).map(list)})


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def rows(*fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(*fields).map(list)


task_rows = rows(ids, names, names, st.integers(0, 9), maybe(options), maybe(blobs), st.just("json"), blobs)
completion_rows = rows(
    ids,
    st.integers(0, 3),
    st.integers(0, 10),
    maybe(st.sampled_from(["json", "failure"])),
    maybe(blobs),
    maybe(options | new_body),
)
#: What makes sense in a field, by its type as protocol.md writes it, without limits.
SENSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "uint": numbers,
    "bool": st.booleans(),
    "text": names,
    "id": ids,
    "options": options,
    "resume row": rows(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32)),
    "list<text>": st.lists(names, max_size=3),
    "list<id>": st.lists(ids, max_size=4),
    "list<task row>": st.lists(task_rows, min_size=1, max_size=4),
    "list<completion row>": st.lists(completion_rows, max_size=4),
    "list<started row>": st.lists(rows(ids, st.integers(0, 3), maybe(st.booleans())), max_size=4),
    "list<inventory row>": st.lists(rows(ids, st.integers(0, 3), st.integers(0, 1)), max_size=4),
}


def field(written: str) -> st.SearchStrategy[Any]:
    kind = re.sub(r"\(\d+\)|\?", "", written)
    sensible = SENSIBLE[kind]
    return maybe(sensible) if written.endswith("?") else sensible


def message(command: Any) -> st.SearchStrategy[list[Any]]:
    """A message of a command, whole and sensible as often as not."""
    good = st.tuples(*[field(written) for written, _ in command.fields]).map(list)
    bad = st.lists(garbage, max_size=len(command.fields) + 1)
    spoilt = st.tuples(good, st.integers(0, 8), garbage).map(
        lambda drawn: [*drawn[0][: drawn[1]], drawn[2], *drawn[0][drawn[1] + 1 :]]
    )
    return st.one_of(good, good, spoilt, bad).map(lambda fields: [command.number, *fields])


FROM_CLIENTS = [command for command in COMMANDS.values() if command.sender in (Side.CLIENT, None)]
conversations = st.lists(st.sampled_from(FROM_CLIENTS).flatmap(message), min_size=1, max_size=8)


@pytest.mark.parametrize("greeted", [False, True], ids=["strangers", "guests"])
def test_random_conversations_harm_nobody_and_leave_nothing(greeted, monkeypatch, caplog):
    monkeypatch.setattr(broker_module, "GRACE_CLOSED_MS", 0)

    async def clean_up(place) -> None:
        """What was validly published stays: it is called off and forgotten, as its owner would do."""
        await attack(place, frame([66, 1, []]))
        known = [b"a" * 16, b"b" * 16, b"c" * 16, "text", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"]
        await attack(place, frame([37, 1, known]))

    with asyncio.Runner() as runner:
        context = house()
        place = runner.run(context.__aenter__())
        innocent = runner.run(bystander(place))

        @settings(
            max_examples=CONVERSATIONS if greeted else CONVERSATIONS // 3,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
        )
        @given(conversations)
        def converse(arrays: list[list[Any]]) -> None:
            async def once() -> None:
                async with asyncio.timeout(DEADLINE):
                    await attack(place, b"".join(map(frame, arrays)), greeted=greeted)
                    await place.until(lambda: len(place.broker.sessions) == 1)
                    await clean_up(place)
                    await innocent.is_served()

            runner.run(once())

        converse()
        runner.run(context.__aexit__(None, None, None))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
