import os

import pytest

from chervil_worker import control, packets


@pytest.mark.parametrize(
    "message",
    [
        control.Spawn(3),
        control.Stop(),
        control.Manifest("app", None, None, "default", ["a", "b"], {"a": [1000, True, False]}),
        control.Manifest(
            "app", ["chervil://h:1"], ["ca", None, None], "q", [f"module.task_{n}" for n in range(60_000)], {}
        ),
        control.Failed(2),
        control.Born(0, 123),
        control.Exited(0, 123, 9),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_come_out_as_they_went_in(message: control.Message):
    ours, theirs = packets.pair()
    with ours, theirs:
        control.send(ours, message)
        assert control.receive(theirs) == (message, ())


def test_child_end_comes_with_spawn():
    ours, theirs = packets.pair()
    read, write = os.pipe()
    with ours, theirs:
        control.send(ours, control.Spawn(1), [write])
        received = control.receive(theirs)
    assert received is not None
    message, (passed,) = received
    assert message == control.Spawn(1)
    os.write(passed, b"x")
    assert os.read(read, 1) == b"x"
    for descriptor in (read, write, passed):
        os.close(descriptor)


def test_gone_peer_is_none():
    ours, theirs = packets.pair()
    with theirs:
        ours.close()
        assert control.receive(theirs) is None
