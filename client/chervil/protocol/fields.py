"""Checks of decoded values: one small function for each field type of protocol.md, section 2.

A check takes what msgpack made of a field and returns it, or raises ValueError saying what it wanted.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from chervil.protocol.frames import pack
from chervil.protocol.ids import canonical, is_wire_id
from chervil.protocol.limits import OPTIONS_BYTES_MAX, OPTIONS_MAX, UINT_MAX

Check = Callable[[Any], Any]


class UnknownOption(ValueError):
    """An even option key that this side does not know."""


def uint(value: Any) -> int:
    if type(value) is int and 0 <= value <= UINT_MAX:
        return value
    raise ValueError(f"wants an integer from 0 to 2^63-1, not {brief(value)}")


def boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise ValueError(f"wants a boolean, not {brief(value)}")


def text(limit: int) -> Check:
    """Text of 1 to `limit` bytes without NUL."""

    def check(value: Any) -> str:
        if type(value) is str and "\0" not in value and 1 <= len(value.encode()) <= limit:
            return value
        raise ValueError(f"wants text of 1 to {limit} bytes without NUL, not {brief(value)}")

    return check


def secret(limit: int) -> Check:
    """Text that no error message repeats."""
    check = text(limit)

    def check_secret(value: Any) -> str:
        try:
            return check(value)  # type: ignore[no-any-return]
        except ValueError:
            raise ValueError(f"wants a secret of 1 to {limit} bytes without NUL") from None

    return check_secret


def binary(limit: int) -> Check:
    """A byte string of up to `limit` bytes."""

    def check(value: Any) -> bytes:
        if type(value) is bytes and len(value) <= limit:
            return value
        raise ValueError(f"wants at most {limit} bytes, not {brief(value)}")

    return check


def exactly(size: int) -> Check:
    """A byte string of just `size` bytes."""

    def check(value: Any) -> bytes:
        if type(value) is bytes and len(value) == size:
            return value
        raise ValueError(f"wants {size} bytes, not {brief(value)}")

    return check


def task_id(value: Any) -> bytes | str:
    if is_wire_id(value):
        return canonical(value)
    raise ValueError(f"wants an id (16 bytes, or text of 1 to 128 bytes), not {brief(value)}")


def optional(check: Check) -> Check:
    """Nil, or what `check` takes."""
    return lambda value: None if value is None else check(value)


def list_of(check: Check, limit: int, at_least: int = 0) -> Check:
    """An array of `at_least` to `limit` elements that each pass `check`."""

    def check_list(value: Any) -> list[Any]:
        if type(value) is not list or not at_least <= len(value) <= limit:
            raise ValueError(f"wants a list of {at_least} to {limit}, not {brief(value)}")
        return [check(element) for element in value]

    return check_list


def row(*checks: Check, required: int | None = None) -> Check:
    """An array with a check for each position.

    The last ones may be missing when fewer are `required`, and come back as their check makes of
    nil; extra ones are dropped.
    """
    least = len(checks) if required is None else required

    def check_row(value: Any) -> list[Any]:
        if type(value) is not list or len(value) < least:
            raise ValueError(f"wants a row of at least {least} fields, not {brief(value)}")
        present = value[: len(checks)]
        present += [None] * (len(checks) - len(present))
        return [check(field) for check, field in zip(checks, present, strict=True)]

    return check_row


def options(known: Mapping[int, Check], bodies: Collection[int] = ()) -> Check:
    """An int-keyed map: known keys are checked, unknown odd ones kept, unknown even ones refused.

    Values that may be of any length weigh at most OPTIONS_BYTES_MAX together, but for the keys in
    `bodies`, whose check has its own limit.
    """

    def check_options(value: Any) -> dict[int, Any]:
        if type(value) is not dict or len(value) > OPTIONS_MAX:
            raise ValueError(f"wants a map of at most {OPTIONS_MAX} options, not {brief(value)}")
        weight = 0
        for key, element in value.items():
            if type(key) is not int or not 0 <= key <= UINT_MAX:
                raise ValueError(f"option keys are integers from 0, not {brief(key)}")
            check = known.get(key)
            if check is None:
                if key % 2 == 0:
                    raise UnknownOption(f"option {key} is not known here")
                weight += len(pack(element))
                continue
            try:
                value[key] = check(element)
            except UnknownOption:
                raise
            except ValueError as error:
                raise ValueError(f"option {key} {error}") from None
            if type(element) in (list, dict) and key not in bodies:
                weight += len(pack(element))
        if weight > OPTIONS_BYTES_MAX:
            raise ValueError(f"wants options of at most {OPTIONS_BYTES_MAX} bytes, not {weight}")
        return value

    return check_options


def string_map(value: Any) -> dict[str, Any]:
    """A map with text keys; what stands behind them is the reader's business."""
    if type(value) is dict and all(type(key) is str for key in value):
        return value
    raise ValueError(f"wants a map with text keys, not {brief(value)}")


def brief(value: object) -> str:
    """A value for an error message: its type, and itself where that is short and harmless."""
    if value is None or type(value) in (bool, int):
        return repr(value)
    if type(value) is str:
        return ascii(value[:40])
    size = f" of {len(value)}" if isinstance(value, bytes | list | dict) else ""
    return f"{type(value).__name__}{size}"
