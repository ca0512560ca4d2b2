"""Ids: text for people, 16 bytes on the wire where the text is a canonical UUID."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil.protocol import to_text, to_wire
from chervil.protocol.ids import canonical, is_wire_id

TEXT = "f47ac10b-58cc-4372-a567-0e02b2c3d479"


def test_canonical_uuid_travels_as_its_16_bytes():
    assert to_wire(TEXT) == uuid.UUID(TEXT).bytes


@pytest.mark.parametrize(
    "text", [TEXT.upper(), TEXT.replace("-", ""), "{" + TEXT + "}", TEXT[:-1] + "g", "x", "i" * 128]
)
def test_everything_else_travels_as_text(text):
    assert to_wire(text) == text


@pytest.mark.parametrize("text", ["", "a\0b", "i" * 129, "é" * 65, "\ud800"])
def test_text_that_can_be_no_id_is_refused(text):
    with pytest.raises(ValueError, match="a task id is 1 to 128 bytes of text without NUL"):
        to_wire(text)


@given(st.uuids())
def test_uuid_comes_back_as_it_was(identity):
    assert to_text(to_wire(str(identity))) == str(identity)


@given(st.text(min_size=1, max_size=32).filter(lambda text: "\0" not in text))
def test_text_comes_back_as_it_was(text):
    assert to_text(to_wire(text)) == text


@pytest.mark.parametrize("value", [b"x" * 16, "x", "x" * 128, TEXT])
def test_both_forms_are_wire_ids(value):
    assert is_wire_id(value)


@pytest.mark.parametrize("value", [b"x" * 15, b"", "", "x" * 129, "a\0", 7, None, [b"x" * 16]])
def test_nothing_else_is_a_wire_id(value):
    assert not is_wire_id(value)


def test_both_forms_of_a_uuid_have_one_canonical_form():
    assert canonical(TEXT) == canonical(uuid.UUID(TEXT).bytes) == uuid.UUID(TEXT).bytes
    assert canonical("order-17") == "order-17"
    assert canonical("x" * 36) == "x" * 36
