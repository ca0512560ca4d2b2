"""The vectors: encoding gives these bytes, decoding gives this meaning, refusals give this code."""

import json
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from chervil.protocol import COMMANDS, Connection, RemoteProtocolError, Side, State
from chervil.protocol.frames import FrameReader, FrameWriter
from chervil.protocol.limits import FRAME_MAX
from chervil.protocol.messages import parse

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text(encoding="utf-8"))
BY_NAME = {command.name: command for command in COMMANDS.values()}


def value_of(tagged: Any) -> Any:
    """A vector's value: bytes and maps with other keys than text are written with a tag."""
    if isinstance(tagged, list):
        return [value_of(element) for element in tagged]
    if not isinstance(tagged, dict):
        return tagged
    if tagged.keys() == {"hex"}:
        return bytes.fromhex(tagged["hex"])
    if tagged.keys() == {"map"}:
        return {value_of(key): value_of(value) for key, value in tagged["map"]}
    return {key: value_of(value) for key, value in tagged.items()}


def message_of(vector: dict[str, Any]) -> Any:
    return BY_NAME[vector["command"]].message(**{k: value_of(v) for k, v in vector["fields"].items()})


def decoded(frame: bytes) -> Any:
    [(array, size)] = FrameReader().feed(frame)
    return parse(array, size)


def shortest(value: Any) -> bytes:
    """msgpack's shortest form of a value, written from its specification and not from our encoder."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        if value < 0x80:
            return pack("B", value)
        size = next(n for n in (1, 2, 4, 8) if value < 256**n)
        return {1: b"\xcc", 2: b"\xcd", 4: b"\xce", 8: b"\xcf"}[size] + value.to_bytes(size, "big")
    if isinstance(value, str):
        data = value.encode()
        return counted(len(data), ((32, 0xA0), (1 << 8, 0xD9), (1 << 16, 0xDA))) + data
    if isinstance(value, bytes):
        return counted(len(value), ((0, 0), (1 << 8, 0xC4), (1 << 16, 0xC5))) + value
    if isinstance(value, list | tuple):
        return counted(len(value), ((16, 0x90), (0, 0), (1 << 16, 0xDC))) + b"".join(map(shortest, value))
    pairs = [part for pair in value.items() for part in pair]
    return counted(len(value), ((16, 0x80), (0, 0), (1 << 16, 0xDE))) + b"".join(map(shortest, pairs))


def counted(count: int, forms: tuple[tuple[int, int], ...]) -> bytes:
    fixed, *longer = forms
    if count < fixed[0]:
        return pack("B", fixed[1] | count)
    for width, (below, head) in zip(("B", "H"), longer, strict=True):
        if count < below:
            return pack(f">B{width}", head, count)
    raise AssertionError("no vector is that long")


def titled(kind: str) -> Any:
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=lambda vector: vector["title"])


@titled("frames")
def test_encoding_gives_these_bytes(vector):
    message = message_of(vector)
    frame = FrameWriter().frame((BY_NAME[vector["command"]].number, *message))
    assert frame.hex() == vector["frame"]


@titled("frames")
def test_bytes_are_the_shortest_msgpack_behind_a_length(vector):
    payload = shortest([BY_NAME[vector["command"]].number, *message_of(vector)])
    assert (pack(">I", len(payload)) + payload).hex() == vector["frame"]


@pytest.mark.parametrize(
    "vector", VECTORS["frames"] + VECTORS["accepted"], ids=lambda vector: vector["title"]
)
def test_decoding_gives_this_meaning(vector):
    message = decoded(bytes.fromhex(vector["frame"]))
    assert message == message_of(vector)
    assert type(message).__name__.upper() == vector["command"]


@titled("refused")
def test_refusal_gives_this_code(vector):
    end = Connection(Side(vector.get("side", "c" if _sent_by_broker(vector) else "b")))
    end.state = State(vector.get("state") or _first_state(vector))
    end.accept_frames_up_to(vector.get("limit", FRAME_MAX))
    with pytest.raises(RemoteProtocolError) as caught:
        list(end.receive(bytes.fromhex(vector["frame"])))
    assert caught.value.code == vector["code"]
    assert caught.value.message


def _number(vector: dict[str, Any]) -> int:
    """The command number of a refused frame where it can be seen, else 0."""
    frame = bytes.fromhex(vector["frame"])
    return frame[5] if len(frame) > 5 else 0


def _sent_by_broker(vector: dict[str, Any]) -> bool:
    return _number(vector) in COMMANDS and COMMANDS[_number(vector)].sender is Side.BROKER


def _first_state(vector: dict[str, Any]) -> str:
    return COMMANDS[_number(vector)].states[0] if _number(vector) in COMMANDS else "READY"


def test_every_implemented_command_has_a_frame():
    covered = {vector["command"] for vector in VECTORS["frames"]}
    assert covered == {command.name for command in COMMANDS.values() if not command.later}


def test_refusals_cover_every_code_that_the_wire_itself_gives():
    assert {vector["code"] for vector in VECTORS["refused"]} == {
        "BAD_FRAME",
        "BAD_FIELD",
        "BAD_STATE",
        "UNKNOWN_COMMAND",
        "UNKNOWN_OPTION",
    }
