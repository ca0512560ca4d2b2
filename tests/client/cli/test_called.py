"""What a task was called with, as text and as JSON, whatever a publisher sent."""

import json
from typing import Any

import msgpack
import pytest

from chervil.cli.called import called_with, with_arguments


def report(body: bytes | None, codec: str | None = "json", size: int | None = None) -> dict[str, Any]:
    length = size if body is None else len(body)
    return {"id": "a", "codec": codec, "body": body, "body_bytes": length}


@pytest.mark.parametrize(
    ("body", "codec", "text"),
    [
        (b'[[2, 3], {"x": 1}]', "json", "(2, 3), x=1"),
        (b"[[], {}]", "json", "()"),
        (b'[[], {"to": "you"}]', "json", "(), to='you'"),
        (msgpack.packb([[b"raw"], {}]), "msgpack", "(b'raw',)"),
        (b'[["\\u202e\\n"], {}]', "json", r"('\u202e\n',)"),
    ],
)
def test_a_call_is_written_as_python_does(body: bytes, codec: str, text: str) -> None:
    assert called_with(report(body, codec)) == text


@pytest.mark.parametrize(
    ("body", "codec"),
    [(b"[2, 3]", "json"), (b"{", "json"), (b"[[],{}]", "yaml"), (b"[" * 60_000 + b"]" * 60_000, "json")],
)
def test_what_cannot_be_read_is_told_by_its_length(body: bytes, codec: str) -> None:
    assert called_with(report(body, codec)) == f"{len(body)} bytes of {codec} that cannot be read here"
    shown = with_arguments(report(body, codec))
    assert (shown["args"], shown["kwargs"], shown["body_bytes"]) == (None, None, len(body))


def test_what_is_too_long_or_dropped_is_told_so() -> None:
    assert called_with(report(None, size=70_000)) == "70000 bytes, too long to be shown"
    assert called_with(report(None, None)) is None
    assert called_with({"id": "a"}) is None
    assert with_arguments(report(None, size=70_000))["args"] is None


def test_json_has_arguments_in_place_of_the_body() -> None:
    shown = with_arguments(report(b'[[2, 3], {"x": 1}]'))
    assert (shown["args"], shown["kwargs"]) == ([2, 3], {"x": 1})
    assert "body" not in shown
    assert with_arguments({"id": "a", "stage": "UNKNOWN"}) == {"id": "a", "stage": "UNKNOWN"}


def test_what_json_cannot_write_has_no_arguments_there() -> None:
    keyed = report(msgpack.packb([[{b"key": 1}], {}]), "msgpack")
    shown = with_arguments(keyed)
    assert (shown["args"], shown["kwargs"]) == (None, None)
    assert json.loads(json.dumps(shown)) == shown
    assert called_with(keyed) == "({b'key': 1},)"
