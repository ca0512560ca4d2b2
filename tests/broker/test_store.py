from chervil_broker.gate import Gate
from chervil_broker.store import MemoryStore


def test_the_memory_store_makes_a_batch_durable_at_once():
    store, gate, out = MemoryStore(), Gate(), []
    store.on_durable = gate.open_to
    gate.hold(store.append([("publish",)]), lambda: out.append("out"))
    assert out == ["out"]
    assert store.durability == "memory"


def test_sequences_grow_by_one_a_batch():
    store = MemoryStore()
    assert [store.append([]), store.append([("lease",), ("complete",)]), store.append([])] == [1, 2, 3]
