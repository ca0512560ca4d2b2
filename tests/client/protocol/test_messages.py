"""Messages: what an array becomes, and the one table of commands."""

import msgpack
import pytest

from chervil.protocol import COMMANDS, Code, LocalProtocolError, RemoteProtocolError
from chervil.protocol.limits import FRAME_BATCH
from chervil.protocol.messages import (
    NUMBERS,
    Complete,
    Credit,
    Heartbeat,
    Hello,
    Message,
    Ok,
    Publish,
    Report,
    Status,
    Subscribe,
    Welcome,
    number_of,
    parse,
)

ID = bytes(range(16))
TASK = [ID, "t", "q", 0, None, None, "json", b""]


def refusal(array, size=0):
    with pytest.raises(RemoteProtocolError) as caught:
        parse(array, size)
    return caught.value


def test_array_becomes_its_message():
    assert parse([49, 4]) == Credit(4)
    assert parse([4]) == Heartbeat()
    assert parse([16, 1, [TASK]]) == Publish(1, [TASK])


def test_optional_fields_take_their_default():
    assert parse([6, 7]) == Ok(7, None)
    assert parse([6, 7, None]) == Ok(7, None)
    assert parse([48, 1, ["q"]]) == Subscribe(1, ["q"], None, None)


def test_fields_of_a_later_version_are_ignored():
    assert parse([49, 4, "later", {}]) == Credit(4)
    assert parse([33, 1, [], None, "later"]) == Status(1, [], None)


@pytest.mark.parametrize("number", [0, 99, -1, True, 1.0, "HELLO", None, [1], {}])
def test_unknown_number_is_an_unknown_command(number):
    error = refusal([number])
    assert error.code is Code.UNKNOWN_COMMAND
    assert error.message.startswith("no command ")


def test_missing_field_is_said_with_the_number_wanted():
    error = refusal([16, 1])
    assert (error.code, error.message) == (Code.BAD_FIELD, "PUBLISH wants 2 fields and has 1")


def test_bad_field_is_named():
    error = refusal([1, 1, 1, [], 17])
    assert error.code is Code.BAD_FIELD
    assert error.message == "HELLO name: wants text of 1 to 255 bytes without NUL, not 17"


def test_unknown_even_option_is_named():
    error = refusal([48, 1, ["q"], None, {1: 4, 2: 5}])
    assert (error.code, error.message) == (
        Code.UNKNOWN_OPTION,
        "SUBSCRIBE options: option 2 is not known here",
    )


def test_refused_token_is_not_repeated():
    assert "hunter2" not in str(refusal([1, 1, 1, [], "n", "hunter2" * 100]))


def test_frame_over_256_kib_holds_one_row():
    size = FRAME_BATCH + 1
    assert parse([16, 1, [TASK]], size) == Publish(1, [TASK])
    assert parse([52, 1, [[ID, 1, 1]]], size) == Complete(1, [[ID, 1, 1, None, None, None, None]])
    error = refusal([16, 1, [TASK, TASK]], size)
    assert (error.code, error.message) == (
        Code.BAD_FRAME,
        "PUBLISH of 262145 bytes; over 262144 it may hold one item only",
    )
    assert len(parse([16, 1, [list(TASK), list(TASK)]], FRAME_BATCH).tasks) == 2


def test_frame_over_256_kib_may_hold_one_map():
    assert parse([65, 1, {"queues": [1, 2, 3]}], FRAME_BATCH + 1) == Report(1, {"queues": [1, 2, 3]})


def test_reprs_show_no_secret():
    hello = Hello(1, 1, [], "n", token="hunter2", resume=[ID, b"k" * 32])
    assert "hunter2" not in repr(hello)
    assert "kkk" not in repr(hello)
    assert repr(Hello(1, 1, [], "n")) == "Hello(1, 1, [], 'n', None, None, None, None)"
    welcome = Welcome(1, [], ID, ID, b"k" * 32, resumed=False, heartbeat_ms=10000)
    assert "kkk" not in f"{welcome} {welcome!r}"


def test_every_message_has_its_number_and_every_number_its_message():
    for number, command in COMMANDS.items():
        assert NUMBERS[command.message] == number
        assert len(command.fields) == len(command.message._fields)
    assert set(NUMBERS) == set(Message.__args__)


def test_number_of_a_message():
    assert number_of(Credit(1)) == 49


@pytest.mark.parametrize("thing", [(49, 1), None, "CREDIT", Credit])
def test_what_is_no_message_has_no_number(thing):
    with pytest.raises(LocalProtocolError, match="is no message"):
        number_of(thing)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_no_field_of_any_command_takes_a_value_of_every_kind(command):
    """Each check refuses at least one of these, and raises nothing else than ValueError."""
    for kind, check in command.fields:
        refusals = 0
        for value in (None, True, 1.5, -1, 2**64 - 1, "", b"", "x" * 70_000, [[]], [None], {1: 1}, {"": {}}):
            try:
                check(msgpack.unpackb(msgpack.packb(value), strict_map_key=False))
            except ValueError:
                refusals += 1
        assert refusals >= 6, kind
