import pytest

from chervil_broker.options import BrokerOptions


def test_memory_defaults_to_half_of_what_there_is():
    assert BrokerOptions().max_memory > 1 << 27


def test_a_body_limit_over_the_protocols_is_refused():
    with pytest.raises(ValueError, match=r"--body-limit is 1 to 16777216 bytes, not 99999999"):
        BrokerOptions(body_limit=99_999_999)


def test_a_memory_limit_that_holds_nothing_is_refused():
    with pytest.raises(ValueError, match="--max-memory is at least 1MB"):
        BrokerOptions(max_memory=1000)


def test_fewer_than_no_remembered_ids_are_refused():
    assert BrokerOptions(dedup_ids=0).dedup_ids == 0
    with pytest.raises(ValueError, match="--dedup-ids is a number from 0, not -1"):
        BrokerOptions(dedup_ids=-1)
