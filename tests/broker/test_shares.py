import pytest

from chervil_broker.shares import shares
from chervil_broker.users import Quotas, UsersError

MB = 1 << 20


def test_the_only_vhost_has_everything():
    assert shares(100 * MB, {"default": Quotas()}) == {"default": 100 * MB}


def test_a_quota_is_kept_and_the_rest_is_divided_equally():
    vhosts = {"default": Quotas(), "shop": Quotas(max_memory=40 * MB), "mail": Quotas(max_tasks=5)}
    assert shares(100 * MB, vhosts) == {"default": 30 * MB, "shop": 40 * MB, "mail": 30 * MB}


def test_quotas_may_take_all_where_nobody_is_without():
    assert shares(2 * MB, {"default": Quotas(2 * MB)}) == {"default": 2 * MB}


def test_quotas_that_do_not_fit_are_refused_with_what_to_do():
    with pytest.raises(UsersError, match=r"40.0 MiB for shop, and 1 without .* vhost set"):
        shares(40 * MB, {"default": Quotas(), "shop": Quotas(max_memory=40 * MB)})
    with pytest.raises(UsersError, match="take nothing, and 2 without"):
        shares(MB, {"default": Quotas(), "shop": Quotas()})
