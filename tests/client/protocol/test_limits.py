"""The limits hold together: what one allows, another does not forbid."""

import msgpack

from chervil.protocol import Connection, Side, State, TaskOption, limits, rows
from chervil.protocol.frames import FrameWriter
from chervil.protocol.messages import Deliver, Publish


def largest_task(**options):
    return [
        "i" * limits.ID_MAX,
        "n" * limits.NAME_MAX,
        "q" * limits.NAME_MAX,
        9,
        options.get("options"),
        b"h" * limits.HEADERS_MAX,
        "c" * limits.CODEC_MAX,
        b"b" * limits.BODY_MAX,
    ]


def largest_options():
    """Every option at its longest, and an unknown one that fills what is allowed."""
    text = "t" * limits.NAME_MAX
    options = dict.fromkeys(
        (TaskOption.UNIQUE_KEY, TaskOption.LIMIT_KEY, TaskOption.ORIGIN, TaskOption.SHADOW), text
    )
    options |= dict.fromkeys(
        (TaskOption.ROOT_ID, TaskOption.PARENT_ID, TaskOption.GROUP_ID), "i" * limits.ID_MAX
    )
    return options | {101: b"o" * (limits.OPTIONS_BYTES_MAX - 3)}


def test_largest_task_can_be_published_and_delivered():
    task = largest_task(options=largest_options())
    broker, client = Connection(Side.BROKER), Connection(Side.CLIENT)
    broker.state = client.state = State.READY
    broker.accept_frames_up_to(limits.FRAME_MAX)
    [published] = broker.receive(client.send(Publish(limits.UINT_MAX, [task])))
    assert isinstance(published, Publish)
    id_, name, queue, priority, options, headers, codec, body = published.tasks[0]
    most = limits.UINT_MAX
    row = [id_, most, True, most, most, name, queue, priority, options, headers, codec, body, None]
    [delivered] = client.receive(broker.send(Deliver([row])))
    assert isinstance(delivered, Deliver)
    assert delivered.tasks[0] == row


def test_every_row_of_a_batch_fits_at_its_smallest():
    smallest = [b"i" * 16, 0, 1]
    assert len(FrameWriter().frame((52, 1, [smallest] * limits.ROWS_MAX))) <= limits.FRAME_BATCH + 4


def test_weight_is_an_upper_bound_of_the_largest_row():
    task = largest_task(options=largest_options())
    assert len(msgpack.packb(task)) <= rows.weight(task[7], task[5], task[4])


def test_a_stranger_may_say_a_longest_hello_before_it_is_known():
    hello = [1, 1, 1, ["f" * 32] * 16, "n" * 255, "t" * 255, "v" * 255, [b"s" * 16, b"k" * 32], {}]
    assert len(msgpack.packb(hello)) < limits.PREAUTH_FRAME
