"""The store that keeps nothing."""

import pytest

from chervil_broker.store import MemoryStore, nobody


def test_the_memory_store_keeps_nothing_and_says_so():
    store = MemoryStore()
    assert (store.keeps, store.durability, store.segment, store.stats()) == (False, "memory", 0, {})


def test_records_for_the_memory_store_are_a_mistake():
    with pytest.raises(AssertionError, match="2 records"):
        MemoryStore().append([b"a", b"b"])


def test_until_a_gate_listens_nobody_is_told():
    assert MemoryStore().on_durable is nobody
    assert nobody(1) is None


def test_a_store_that_keeps_nothing_has_nothing_to_give_up():
    with pytest.raises(AssertionError, match="nothing is kept"):
        MemoryStore().give_up(ValueError())
