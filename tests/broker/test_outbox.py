from chervil.protocol.messages import Deliver, Heartbeat, Result, Status
from chervil_broker.outbox import Outbox


def test_parts_come_out_in_order():
    outbox = Outbox()
    parts = [b"frame", Heartbeat(), b"another"]
    for part in parts:
        outbox.put(part)
    assert len(outbox) == 3
    assert [outbox.take() for _ in parts] == parts
    assert not outbox


def test_frames_and_results_count_and_deliveries_do_not():
    outbox = Outbox()
    outbox.put(b"12345")
    outbox.put(Status(1, [[b"i", 7, "json", b"123", None], [b"j", 3, None, None, None]]))
    outbox.put(Result([[b"i", 7, "json", b"12", None]]))
    outbox.put(Deliver([[b"i", 1, False, 0, 0, "t", "q", 0, None, None, "json", b"body"]]))
    assert outbox.kept_bytes == 10
    outbox.take()
    assert outbox.kept_bytes == 5
    outbox.clear()
    assert (len(outbox), outbox.kept_bytes) == (0, 0)
