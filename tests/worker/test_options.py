import logging
import socket

import pytest

from chervil_worker.options import CONCURRENCY_MAX, WorkerOptions


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "web1.example.org")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("worker@%h", "worker@web1.example.org"),
        ("a@%n", "a@web1"),
        ("a@%d", "a@example.org"),
        ("mail", "mail@web1.example.org"),
    ],
)
def test_node_names_expand_and_always_have_a_host(given: str, name: str):
    assert WorkerOptions(hostname=given).node_name == name


def test_defaults_are_those_of_the_documents():
    options = WorkerOptions()
    assert options.node_name == "worker@web1.example.org"
    assert options.level == logging.WARNING
    assert options.queues == ()
    assert options.log_format == "text"
    assert options.concurrency >= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"concurrency": 0}, "--concurrency is 1 to"),
        ({"concurrency": CONCURRENCY_MAX + 1}, "--concurrency is 1 to"),
        ({"queues": ("q" * 256,)}, "at most 255 bytes"),
        ({"queues": tuple(map(str, range(1025)))}, "at most 1024 queues"),
        ({"hostname": "n" * 300}, "--hostname"),
        ({"time_limit": 0.0}, "--time-limit is more than 0"),
        ({"soft_time_limit": float("nan")}, "--soft-time-limit is more than 0"),
        ({"time_limit": 1e10}, "--time-limit is more than 0 and at most"),
    ],
)
def test_values_out_of_range_are_refused_by_name(given: dict, message: str):
    with pytest.raises(ValueError, match=message):
        WorkerOptions(**given)
