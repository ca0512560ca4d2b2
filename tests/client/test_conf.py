import warnings
from copy import deepcopy
from datetime import timedelta

import pytest

from chervil import Chervil
from chervil.conf import _CHECKS, Settings
from chervil.exceptions import ImproperlyConfigured
from chervil.tls_files import TLSFiles


def test_every_setting_has_a_default_and_a_check():
    known = [name for name in Settings.__annotations__ if not name.startswith("_")]
    assert known == list(_CHECKS)
    for name in known:
        assert _CHECKS[name](getattr(Settings(), name)) == getattr(Settings(), name)


def test_attributes_and_items_are_the_same():
    conf = Settings(task_default_queue="mail")
    conf["timezone"] = "Europe/Berlin"
    assert (conf["task_default_queue"], conf.timezone) == ("mail", "Europe/Berlin")
    assert dict(conf)["task_default_queue"] == "mail"
    assert dict(conf.items()) == dict(conf)
    assert len(conf) == len(list(conf.keys()))
    assert "timezone" in conf
    assert conf.get("nothing", 5) == 5
    assert conf.get("timezone") == "Europe/Berlin"
    with pytest.raises(KeyError):
        conf["nothing"]


def test_a_near_miss_is_an_error():
    with pytest.raises(ImproperlyConfigured, match="did you mean 'task_serializer'"):
        Settings(task_serialiser="json")
    with pytest.raises(AttributeError, match="did you mean 'timezone'"):
        _ = Settings().timezon


def test_a_key_of_ones_own_warns_once_and_is_kept():
    conf = Settings()
    with pytest.warns(UserWarning, match="'shop_currency' is no setting") as caught:
        conf.shop_currency = "EUR"
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conf.shop_currency = "CHF"
    assert conf.shop_currency == "CHF"


def test_a_warning_points_at_the_apps_line():
    with pytest.warns(UserWarning, match="is no setting"):
        Chervil("x", entirely_my_own=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker_url", "redis://h"),
        ("broker_url", 5),
        ("broker_url", ["chervil://h", 5]),
        ("broker_url", ["chervil://h", "redis://h"]),
        ("broker_url", []),
        ("broker_url", ";"),
        ("broker_use_ssl", "required"),
        ("broker_use_ssl", {"cert_reqs": 0}),
        ("broker_use_ssl", {"ssl_ca_certs": "/ca"}),
        ("include", "tasks"),
        ("include", 5),
        ("task_default_queue", ""),
        ("task_default_priority", 10),
        ("task_default_priority", True),
        ("task_serializer", "pickle"),
        ("accept_content", ["json", "pickle"]),
        ("task_ignore_result", 1),
        ("result_expires", -1),
        ("timezone", "Mars"),
        ("task_publish_timeout", 0),
        ("task_publish_timeout", "5"),
        ("broker_pool_limit", 0),
        ("task_acks_late", None),
        ("task_reject_on_worker_lost", "no"),
        ("task_delivery_limit", 0),
        ("task_delivery_limit", 101),
        ("task_delivery_limit", None),
        ("task_time_limit", -1),
        ("task_soft_time_limit", "5"),
    ],
)
def test_values_that_cannot_be_used_are_refused(name, value):
    with pytest.raises(ImproperlyConfigured, match=f"setting {name} "):
        Settings(**{name: value})


def test_an_update_is_all_or_nothing():
    conf = Settings()
    with pytest.raises(ImproperlyConfigured):
        conf.update({"timezone": "Europe/Berlin"}, task_default_priority=99)
    assert conf.timezone == "UTC"
    conf.update(result_expires=timedelta(hours=1))
    assert conf.result_expires == timedelta(hours=1)


@pytest.mark.parametrize("value", [None, 0, 0.5, timedelta(minutes=5)])
def test_time_limits_are_seconds_or_none(value):
    assert Settings(task_time_limit=value).task_time_limit == value


def test_changes_are_counted_and_are_no_setting():
    conf = Settings()
    before = conf._changes
    conf.timezone = "Europe/Berlin"
    conf.update(task_default_queue="mail")
    assert conf._changes > before + 1
    assert not [name for name in conf if "changes" in name]
    copy = deepcopy(conf)
    assert dict(copy) == dict(conf)


def test_the_repr_shows_no_url():
    conf = Settings(broker_url="chervil://geheim@h", include=["a"])
    assert repr(conf) == "Settings(include=('a',))"


def test_several_addresses_are_kept_as_they_are_given():
    conf = Settings(broker_url=["chervil://a", "chervil://b"])
    assert conf.broker_url == ("chervil://a", "chervil://b")
    conf.broker_url = "chervil://a;chervil://b"
    assert conf.broker_url == "chervil://a;chervil://b"


def test_files_for_tls_are_kept_as_files_and_survive_a_copy():
    conf = Settings(broker_use_ssl={"ca_certs": "/ca"})
    assert conf.broker_use_ssl == TLSFiles("/ca")
    assert Settings(**conf).broker_use_ssl == TLSFiles("/ca")
    conf.broker_use_ssl = False
    assert conf.broker_use_ssl is None
