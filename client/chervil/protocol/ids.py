"""Ids: text for people, 16 bytes on the wire where the text is a canonical UUID."""

import re

from chervil.protocol.limits import ID_MAX

#: An id as it travels: 16 bytes, or text that is no canonical UUID.
WireId = bytes | str

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UUID_TEXT = 36
_UUID_BYTES = 16


def to_wire(text: str) -> WireId:
    """The wire form of an id; raises ValueError unless it is 1 to 128 bytes of text without NUL."""
    if len(text) == _UUID_TEXT and _CANONICAL.fullmatch(text):
        return bytes.fromhex(text.replace("-", ""))
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = 0
    if not 1 <= size <= ID_MAX or "\0" in text:
        raise ValueError(f"a task id is 1 to {ID_MAX} bytes of text without NUL, not {text[:200]!r}")
    return text


def to_text(wire: WireId) -> str:
    """The text form of an id that came over the wire."""
    if isinstance(wire, str):
        return wire
    h = wire.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def is_wire_id(value: object) -> bool:
    """Whether a decoded value has one of the two forms."""
    if type(value) is bytes:
        return len(value) == _UUID_BYTES
    if type(value) is str:
        return 1 <= len(value.encode("utf-8", "replace")) <= ID_MAX and "\0" not in value
    return False


def canonical(wire: WireId) -> WireId:
    """The one form under which an id is kept, for a peer that sent a UUID as text."""
    if type(wire) is str and len(wire) == _UUID_TEXT:
        return to_wire(wire)
    return wire
