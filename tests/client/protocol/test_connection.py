"""One end of a connection: who may say what, when."""

from itertools import product

import pytest

from chervil.protocol import (
    COMMANDS,
    TRANSITIONS,
    Code,
    Connection,
    LocalProtocolError,
    RemoteProtocolError,
    Side,
    State,
)
from chervil.protocol.frames import FrameWriter
from chervil.protocol.limits import FRAME_MAX, PREAUTH_FRAME
from chervil.protocol.messages import (
    Credit,
    Error,
    Goodbye,
    Heartbeat,
    Hello,
    Ok,
    Publish,
    Stats,
    Welcome,
)

ID = bytes(range(16))
#: A value that passes for each field type of the commands.
SAMPLES = {
    "uint": 1, "uint?": None, "bool": True, "bool?": None, "text": "x", "text?": None, "bytes(16)": ID,
    "bytes(32)": bytes(32), "id": ID, "map": {}, "map?": None, "options?": None, "resume row?": None,
    "list<task row>": [[ID, "t", "q", 0, None, None, "json", b""]], "list<id>": [ID],
}  # fmt: skip


def sample(command):
    """A message of a command."""
    values = []
    for kind, _ in command.fields:
        plain = kind if kind.startswith("bytes") else kind.partition("(")[0] + ("?" if "?" in kind else "")
        values.append(SAMPLES.get(plain, None if "?" in kind else []))
    return command.message(*values)


def frame_of(number):
    return FrameWriter().frame((number, *sample(COMMANDS[number])))


def end_in(state, side):
    end = Connection(side)
    end.state = state
    end.accept_frames_up_to(FRAME_MAX)
    return end


def pair():
    """A client and a broker that have greeted each other."""
    client, broker = Connection(Side.CLIENT), Connection(Side.BROKER)
    assert list(broker.receive(client.send(Hello(1, 1, [], "test"))))
    welcome = Welcome(1, [], ID, ID, bytes(32), resumed=False, heartbeat_ms=10_000)
    assert list(client.receive(broker.send(welcome))) == [welcome]
    return client, broker


def told(sender, receiver, message):
    """Sends a message over and returns the state that both are in then."""
    assert list(receiver.receive(sender.send(message))) == [message]
    assert sender.state is receiver.state
    return sender.state


TRIPLES = list(product(State, Side, COMMANDS))


def test_legal_triples_are_those_of_the_command_table():
    legal = {
        (State(name), side, number)
        for number, command in COMMANDS.items()
        for side in (Side if command.sender is None else [command.sender])
        for name in command.states
    }
    assert set(TRANSITIONS) == legal
    assert 0 < len(legal) < len(TRIPLES)


def allowed(state, side):
    """The numbers that the table has for whoever sends in a state."""
    return {number for at, sender, number in TRANSITIONS if (at, sender) == (state, side)}


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("state", State)
def test_what_is_not_in_the_table_may_not_be_sent(state, side):
    for number in COMMANDS.keys() - allowed(state, side):
        end = end_in(state, side)
        with pytest.raises(LocalProtocolError) as caught:
            end.send(sample(COMMANDS[number]))
        assert caught.value.code is Code.BAD_STATE
        assert COMMANDS[number].name in caught.value.message
        assert end.state is state


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("state", State)
def test_what_is_not_in_the_table_is_not_received(state, side):
    for number in COMMANDS.keys() - allowed(state, side):
        end = end_in(state, side.other)
        with pytest.raises(RemoteProtocolError) as caught:
            list(end.receive(frame_of(number)))
        assert caught.value.code is Code.BAD_STATE
        assert end.state is state


@pytest.mark.parametrize(("state", "side", "number"), TRANSITIONS, ids=str)
def test_what_is_in_the_table_leads_both_ends_where_it_says(state, side, number):
    sender, receiver = end_in(state, side), end_in(state, side.other)
    message = sample(COMMANDS[number])
    assert list(receiver.receive(sender.send(message))) == [message]
    assert sender.state is receiver.state
    if not isinstance(message, Error):
        assert sender.state is TRANSITIONS[state, side, number]


def test_greeting_makes_both_ready():
    client, broker = pair()
    assert (client.state, broker.state) == (State.READY, State.READY)


def test_broker_may_refuse_the_greeting():
    client, broker = Connection(Side.CLIENT), Connection(Side.BROKER)
    list(broker.receive(client.send(Hello(1, 1, [], "test"))))
    assert told(broker, client, Error(None, "AUTH_REQUIRED", "a token is needed")) is State.CLOSED


def test_broker_may_refuse_a_connection_that_has_said_nothing():
    client, broker = Connection(Side.CLIENT), Connection(Side.BROKER)
    assert told(broker, client, Error(None, "TOO_MANY", "too many connections")) is State.CLOSED


def test_error_that_names_a_request_changes_nothing():
    client, broker = pair()
    assert told(broker, client, Error(1, "FORBIDDEN", "the role is missing")) is State.READY


def test_error_without_a_request_is_the_end():
    client, broker = pair()
    assert told(broker, client, Error(None, "BAD_FIELD", "no")) is State.CLOSED


def test_second_goodbye_is_the_end():
    client, broker = pair()
    assert told(client, broker, Goodbye("DONE")) is State.CLOSING
    assert told(broker, client, Ok(1)) is State.CLOSING
    assert told(broker, client, Goodbye("DONE")) is State.CLOSED


def test_goodbye_repeated_by_the_same_side_is_no_answer():
    client, broker = pair()
    told(broker, client, Goodbye("SHUTDOWN"))
    assert told(broker, client, Goodbye("SHUTDOWN")) is State.CLOSING
    assert told(client, broker, Goodbye("DONE")) is State.CLOSED


def test_goodbyes_that_cross_end_both():
    client, broker = pair()
    from_client, from_broker = client.send(Goodbye("DONE")), broker.send(Goodbye("SHUTDOWN"))
    assert len([*client.receive(from_broker), *broker.receive(from_client)]) == 2
    assert (client.state, broker.state) == (State.CLOSED, State.CLOSED)


def test_messages_come_one_by_one_so_that_a_hello_is_judged_before_what_follows():
    client, broker = Connection(Side.CLIENT), Connection(Side.BROKER)
    data = client.send(Hello(1, 1, [], "test"))
    impatient = FrameWriter().frame((64, 1))
    messages = broker.receive(data + impatient)
    assert isinstance(next(messages), Hello)
    assert broker.state is State.GREETING
    with pytest.raises(RemoteProtocolError) as caught:
        next(messages)
    assert caught.value.code is Code.BAD_STATE


def test_hello_answered_at_once_lets_what_follows_in():
    broker = Connection(Side.BROKER)
    data = FrameWriter().frame((1, 1, 1, [], "test")) + FrameWriter().frame((64, 1))
    got = []
    for message in broker.receive(data):
        got.append(message)
        if isinstance(message, Hello):
            broker.send(Welcome(1, [], ID, ID, bytes(32), resumed=False, heartbeat_ms=1))
            broker.accept_frames_up_to(FRAME_MAX)
    assert got[1:] == [Stats(1)]


def test_stranger_may_not_announce_a_long_frame_and_a_friend_may():
    broker = Connection(Side.BROKER)
    with pytest.raises(RemoteProtocolError, match=str(PREAUTH_FRAME)):
        list(broker.receive(b"\x00\x00\x10\x01"))
    broker = Connection(Side.BROKER)
    broker.accept_frames_up_to(FRAME_MAX)
    assert list(broker.receive(b"\x00\x00\x10\x01")) == []
    assert broker.buffered == 4


def test_client_takes_long_frames_from_the_first():
    assert list(Connection(Side.CLIENT).receive(FRAME_MAX.to_bytes(4, "big"))) == []


def test_message_that_can_not_be_encoded_changes_no_state():
    client = Connection(Side.CLIENT)
    with pytest.raises(LocalProtocolError):
        client.send(Hello(1, 1, [], object()))
    assert client.state is State.OPENING
    assert client.send(Hello(1, 1, [], "test"))


def test_thing_that_is_no_message_is_not_sent():
    with pytest.raises(LocalProtocolError, match="is no message"):
        Connection(Side.CLIENT).send("HELLO")


def test_heartbeats_and_credit_change_nothing():
    client, broker = pair()
    assert told(client, broker, Heartbeat()) is State.READY
    assert told(broker, client, Heartbeat()) is State.READY
    assert told(client, broker, Credit(4)) is State.READY
    assert told(client, broker, Publish(1, [[ID, "t", "q", 0, None, None, "json", b""]])) is State.READY
