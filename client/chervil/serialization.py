"""Values to bytes and back: the codecs `json` and `msgpack`.

Both carry None, bool, int, float, str, list and dict, and beyond these datetime, date, time, timedelta,
UUID, Decimal and bytes, each as itself. What changes on the way:

- a tuple comes back as a list, a bytearray or memoryview as bytes;
- json: keys of a dict come back as str; NaN and the infinities travel as Python's `json` writes them
  (`NaN`, `Infinity`), which other languages may refuse; a dict's key may not be bytes or a tuple;
- msgpack: an integer must lie within 64 bits;
- a datetime keeps its offset from UTC, not the name of its zone.

The types beyond JSON's own travel as `{"__type__": "datetime", "__value__": "2026-01-31T12:00:00"}`. A
dict of the user's that has a key `__type__` travels as `{"__type__": "dict", "__value__": [[key, value],
...]}`, so it comes back unharmed.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import msgpack

from chervil.exceptions import DecodeError, EncodeError

TYPE = "__type__"
VALUE = "__value__"

CODECS = ("json", "msgpack")

_TO_MARKER: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    time: ("time", time.isoformat),
    timedelta: ("timedelta", lambda delta: [delta.days, delta.seconds, delta.microseconds]),
    UUID: ("uuid", str),
    Decimal: ("decimal", str),
    bytes: ("bytes", lambda data: b64encode(data).decode("ascii")),
    bytearray: ("bytes", lambda data: b64encode(data).decode("ascii")),
    memoryview: ("bytes", lambda data: b64encode(data).decode("ascii")),
}
_FROM_MARKER: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
    "uuid": UUID,
    "decimal": Decimal,
    "bytes": lambda text: b64decode(text, validate=True),
    "dict": dict,
}

#: What to do instead, for the types that people try most.
_ADVICE: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((set, frozenset), "pass list(...) or sorted(...)"),
    (int, "msgpack holds 64 bits; pass it as str, or use the json serializer"),
    (BaseException, "pass str(...)"),
)


def encode(codec: str, value: Any) -> bytes:
    """The bytes of `value` in `codec`. Raises EncodeError naming what cannot be written."""
    encoder = _ENCODERS.get(codec)
    if encoder is None:
        raise EncodeError(f"no serializer {codec!r}; there are {', '.join(CODECS)}")
    try:
        return encoder(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodeError(f"cannot be written as {codec}: {_reason(error)}") from error


def decode(codec: str, data: bytes, accept: Collection[str] | None = None) -> Any:
    """The value in `data`. Raises DecodeError.

    With `accept`, a codec that is not in it is refused unread.
    """
    if accept is not None and codec not in accept:
        raise DecodeError(
            f"content of type {codec!r} is not accepted here; "
            f"accept_content names {', '.join(sorted(accept)) or 'nothing'}"
        )
    decoder = _DECODERS.get(codec)
    if decoder is None:
        raise DecodeError(f"no serializer {codec!r}; there are {', '.join(CODECS)}")
    try:
        return decoder(data)
    # TypeError and ArithmeticError: a marker whose value is not what its type is made of.
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise DecodeError(f"{len(data)} bytes are not {codec}: {_reason(error)}") from error


def _marker(value: Any) -> dict[str, Any]:
    """What stands for a value of a type that JSON has not: `default` of both encoders."""
    known = _TO_MARKER.get(type(value))
    if known is None:
        known = next((known for kind, known in _TO_MARKER.items() if isinstance(value, kind)), None)
    if known is None:
        name = type(value).__qualname__
        advice = next((text for kinds, text in _ADVICE if isinstance(value, kinds)), None)
        article = "an" if name[0].lower() in "aeiou" else "a"
        raise EncodeError(f"{article} {name} cannot be sent; {advice or 'pass what it is made of instead'}")
    kind, to_plain = known
    return {TYPE: kind, VALUE: to_plain(value)}


def _escape(value: Any) -> Any:
    """`value` with every dict that has a key `__type__` written as its pairs; itself where there is none."""
    if isinstance(value, dict):
        escaped = {key: _escape(element) for key, element in value.items()}
        if TYPE in value:
            return {TYPE: "dict", VALUE: [[key, element] for key, element in escaped.items()]}
        return escaped
    if isinstance(value, list | tuple):
        return [_escape(element) for element in value]
    return value


def _unmark(value: dict[Any, Any]) -> Any:
    """`object_hook` of both decoders."""
    if len(value) == 2 and TYPE in value and VALUE in value:
        kind = value[TYPE]
        from_plain = _FROM_MARKER.get(kind) if type(kind) is str else None
        if from_plain is not None:
            return from_plain(value[VALUE])
    return value


def _json_encoder() -> Callable[[Any], str]:
    """JSON's C encoder, made once: `JSONEncoder.encode` makes one at every call (1.3 us against 0.4)."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(separators=(",", ":"), default=_marker).encode
    # (markers, default, string encoder, indent, separators, sort_keys, skipkeys, allow_nan); without
    # markers a value that contains itself ends in RecursionError.
    chunks = make(None, _marker, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True)
    return lambda value: "".join(chunks(value, 0))


_to_json = _json_encoder()
_from_json = json.JSONDecoder().decode
_from_marked_json = json.JSONDecoder(object_hook=_unmark).decode


def _encode_json(value: Any) -> bytes:
    text = _to_json(value)
    if '"__type__"' in text:
        text = _to_json(_escape(value))
    return text.encode("ascii")


def _decode_json(data: bytes) -> Any:
    text = data.decode("utf-8")
    # A hook is a Python call for every dict: only where there is a marker to find.
    return _from_marked_json(text) if '"__type__"' in text else _from_json(text)


def _encode_msgpack(value: Any) -> bytes:
    data = cast("bytes", msgpack.packb(value, default=_marker))
    if b"__type__" in data:
        data = cast("bytes", msgpack.packb(_escape(value), default=_marker))
    return data


def _decode_msgpack(data: bytes) -> Any:
    # Every container of a value that we wrote takes a byte at least, so its size bounds them all.
    return msgpack.unpackb(
        data,
        raw=False,
        strict_map_key=False,
        ext_hook=_refuse_ext,
        object_hook=_unmark if b"__type__" in data else None,
    )


def _refuse_ext(code: int, data: bytes) -> object:
    del data
    raise ValueError(f"ext type {code} is not allowed")


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep, or contains itself"
    return str(error) or type(error).__name__


_ENCODERS: dict[str, Callable[[Any], bytes]] = {"json": _encode_json, "msgpack": _encode_msgpack}
_DECODERS: dict[str, Callable[[bytes], Any]] = {"json": _decode_json, "msgpack": _decode_msgpack}
