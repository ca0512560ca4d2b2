import pytest

from chervil_broker.shares import Shares, shares
from chervil_broker.users import Quotas

MB = 1 << 20


def test_the_only_vhost_has_everything():
    assert shares(100 * MB, {"default": Quotas()}) == {"default": 100 * MB}


def test_a_quota_is_kept_and_the_rest_is_divided_equally():
    vhosts = {"default": Quotas(), "shop": Quotas(max_memory=40 * MB), "mail": Quotas(max_tasks=5)}
    assert shares(100 * MB, vhosts) == {"default": 30 * MB, "shop": 40 * MB, "mail": 30 * MB}


def test_quotas_may_take_all_where_nobody_is_without():
    assert shares(2 * MB, {"default": Quotas(2 * MB)}) == {"default": 2 * MB}


def test_a_quota_that_does_not_fit_counts_as_none_and_takes_from_nobody_what_was_set_before():
    vhosts = {"default": Quotas(), "shop": Quotas(30 * MB), "big": Quotas(50 * MB), "mail": Quotas(10 * MB)}
    parts = shares(60 * MB, vhosts)
    assert parts == {"default": 10 * MB, "shop": 30 * MB, "big": 10 * MB, "mail": 10 * MB}


def test_a_quota_is_given_whole_as_long_as_others_keep_the_least_share():
    assert shares(40 * MB, {"default": Quotas(), "shop": Quotas(39 * MB)})["default"] == MB
    assert shares(40 * MB, {"default": Quotas(), "shop": Quotas(40 * MB)})["default"] == 20 * MB


@pytest.mark.parametrize("total", [MB, 0, -5 * MB])
def test_nobody_has_less_than_the_least_share(total):
    vhosts = {"default": Quotas(), "shop": Quotas(5 * MB), "tiny": Quotas(1000)}
    assert shares(total, vhosts) == {"default": MB, "shop": MB, "tiny": 1000}


def test_a_quota_that_does_not_fit_is_told_once_until_it_changes(caplog):
    of_a_broker = Shares()
    vhosts = {"default": Quotas(), "shop": Quotas(40 * MB)}
    for total in (40 * MB, 39 * MB):
        of_a_broker.divide(total, vhosts)
    (line,) = caplog.messages
    assert line == (
        "vhost shop has 20.0 MiB and not the 40.0 MiB of its quota: all vhosts together have 40.0 MiB; give "
        "the broker more memory (--max-memory), or: chervil broker vhost set shop --max-memory SIZE"
    )
    of_a_broker.divide(41 * MB, vhosts)
    of_a_broker.divide(40 * MB, vhosts)
    assert caplog.messages == [line, line]


def test_too_many_vhosts_are_told_once(caplog):
    of_a_broker = Shares()
    for _ in range(2):
        of_a_broker.divide(MB, {"default": Quotas(), "shop": Quotas()})
    (line,) = caplog.messages
    assert line == (
        "2 vhosts are too many for 1.0 MiB of memory: each has 1.0 MiB all the same; give the broker more "
        "(--max-memory), or remove some: chervil broker vhost remove NAME"
    )
