from chervil.protocol import Code
from chervil.protocol.messages import Ok
from chervil_broker.engine.charges import FREE_BYTES, KNOWN_BYTES, LINE_BYTES, Charges, text_bytes
from chervil_broker.engine.consumers import Session
from chervil_broker.engine.subscriptions import MEMORY_PART, Subscriptions
from tests.broker.engine.rig import Rig

NAMES = [f"{'n' * 250}{number:05}" for number in range(20_000)]


def session(number):
    return Session(number, "worker", 0, 1, 1)


def test_sessions_that_know_the_same_names_share_them():
    charges = Charges()
    subscriptions = Subscriptions(0, charges)
    one, other = session(1), session(2)
    subscriptions.add(one, ["q"], ["add", "mail", "add"])
    subscriptions.add(other, ["q"], ["mail", "add"])
    assert one.known is other.known
    names = sum(KNOWN_BYTES + text_bytes(name) for name in ("add", "mail"))
    queue = LINE_BYTES + text_bytes("q")
    assert charges.bytes == subscriptions.bytes == 2 * queue + names
    subscriptions.remove(one)
    assert charges.bytes == queue + names
    subscriptions.remove(other)
    assert (charges.bytes, subscriptions.bytes, other.queues, other.known) == (0, 0, [], None)


def test_part_of_the_memory_is_for_subscriptions():
    assert Subscriptions(0, Charges()).limit == FREE_BYTES
    assert Subscriptions(10**9, Charges()).limit == 10**9 // MEMORY_PART


def test_subscription_that_there_is_no_room_for_is_refused_and_the_earlier_one_stays():
    rig = Rig(memory_limit=64 << 20)
    greedy = rig.worker("q", tasks=NAMES[:12_000], credit=1)
    worker = rig.worker("q", credit=9)
    rig.pump()
    rig.engine.subscribe(worker, 7, ["other"], NAMES[8_000:], 2, 77)
    rig.engine.subscribe(worker, 8, ["other"], NAMES[:12_000], 2, 77)
    replies = [reply for number, reply in rig.pump().replies if number == worker]
    assert (replies[0].request, replies[0].code) == (7, Code.FULL)
    assert "queues and task names" in replies[0].message
    assert replies[1] == Ok(8), "a known set of names costs nothing"
    rig.engine.subscribe(worker, 9, ["q"], None, 2, 77)
    rig.engine.subscribe(worker, 10, [f"{'q' * 250}{n:04}" for n in range(6_000)], None, 2, 77)
    assert rig.pump().replies[-1][1].code == Code.FULL
    rig.publish("a")
    assert rig.ids(worker) == ["a"]
    rig.engine.close(greedy)
    rig.engine.subscribe(worker, 11, ["q"], NAMES[8_000:], 2, 77)
    assert rig.pump().replies[-1][1] == Ok(11)


def test_full_broker_turns_no_worker_away():
    rig = Rig(memory_limit=10_000)
    while rig.publish(rig.row(f"t{len(rig.live)}")).accepted:
        pass
    worker = rig.worker("q", credit=1)
    assert len(rig.ids(worker)) == 1
