"""The checks: one for each field type of protocol.md, section 2."""

import re

import pytest

from chervil.protocol import fields
from chervil.protocol.limits import OPTIONS_BYTES_MAX, UINT_MAX

ID = bytes(range(16))


def refused(check, value, words="wants"):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        check(value)
    return str(caught.value)


@pytest.mark.parametrize("value", [0, 1, UINT_MAX])
def test_uint_takes_0_to_the_largest_signed_64_bit_number(value):
    assert fields.uint(value) == value


@pytest.mark.parametrize("value", [-1, UINT_MAX + 1, True, 1.0, "1", None])
def test_uint_refuses_everything_else(value):
    refused(fields.uint, value, "wants an integer from 0 to 2^63-1, not")


def test_boolean_takes_no_numbers():
    assert fields.boolean(True) is True
    assert fields.boolean(False) is False
    refused(fields.boolean, 1, "wants a boolean, not 1")


def test_text_is_measured_in_bytes():
    assert fields.text(4)("éé") == "éé"
    refused(fields.text(4), "ééé")


@pytest.mark.parametrize("value", ["", "a\0", "abcde", b"abc", 3, None])
def test_text_is_neither_empty_nor_long_nor_has_nul(value):
    refused(fields.text(4), value, "wants text of 1 to 4 bytes without NUL, not")


def test_secret_is_text_that_no_message_repeats():
    assert fields.secret(10)("hunter2") == "hunter2"
    assert "hunter" not in refused(fields.secret(5), "hunter2", "wants a secret of 1 to 5 bytes")


def test_binary_takes_up_to_its_limit():
    assert fields.binary(3)(b"") == b""
    assert fields.binary(3)(b"abc") == b"abc"
    refused(fields.binary(3), b"abcd", "wants at most 3 bytes, not bytes of 4")
    refused(fields.binary(3), "abc")


def test_exactly_takes_one_size():
    assert fields.exactly(2)(b"ab") == b"ab"
    refused(fields.exactly(2), b"abc", "wants 2 bytes, not bytes of 3")
    refused(fields.exactly(2), "ab")


def test_task_id_comes_back_in_its_canonical_form():
    assert fields.task_id(ID) == ID
    assert fields.task_id("order-17") == "order-17"
    assert fields.task_id("00010203-0405-0607-0809-0a0b0c0d0e0f") == ID
    refused(fields.task_id, 17, "wants an id (16 bytes, or text of 1 to 128 bytes), not 17")


def test_optional_takes_nil_too():
    assert fields.optional(fields.uint)(None) is None
    assert fields.optional(fields.uint)(3) == 3
    refused(fields.optional(fields.uint), "3")


def test_list_holds_between_its_two_limits():
    check = fields.list_of(fields.uint, 2, at_least=1)
    assert check([1]) == [1]
    assert check([1, 2]) == [1, 2]
    for value in ([], [1, 2, 3], (1,), "ab", {1: 2}):
        refused(check, value, "wants a list of 1 to 2, not")
    refused(check, ["x"])


def test_list_holds_what_the_check_made_of_its_elements():
    assert fields.list_of(fields.task_id, 1)(["00010203-0405-0607-0809-0a0b0c0d0e0f"]) == [ID]


def test_row_has_all_its_fields():
    check = fields.row(fields.uint, fields.boolean)
    assert check([1, True]) == [1, True]
    refused(check, [1], "wants a row of at least 2 fields, not list of 1")
    refused(check, (1, True))
    refused(check, [True, 1])


def test_row_is_filled_with_nil_and_cut():
    check = fields.row(fields.uint, fields.optional(fields.uint), fields.optional(fields.uint), required=1)
    assert check([1]) == [1, None, None]
    assert check([1, 2, 3, "later"]) == [1, 2, 3]


def test_field_that_must_be_there_is_not_filled_with_nil():
    refused(fields.row(fields.uint, fields.uint, required=1), [1])


class TestOptions:
    check = staticmethod(fields.options({2: fields.uint, 4: fields.task_id, 1: fields.string_map}))

    def test_known_ones_are_checked_and_made_canonical(self):
        assert self.check({2: 7, 4: "00010203-0405-0607-0809-0a0b0c0d0e0f"}) == {2: 7, 4: ID}
        refused(self.check, {2: "7"}, "option 2 wants an integer")

    def test_unknown_odd_one_is_kept(self):
        assert self.check({101: ["as", {"it": "is"}]}) == {101: ["as", {"it": "is"}]}

    def test_unknown_even_one_is_named(self):
        with pytest.raises(fields.UnknownOption, match="option 102 is not known here"):
            self.check({102: None})

    def test_unknown_even_one_inside_an_option_is_named_too(self):
        with pytest.raises(fields.UnknownOption, match="option 6"):
            fields.options({2: fields.options({})})({2: {6: 0}})

    @pytest.mark.parametrize("value", [None, [], "x", dict.fromkeys(range(1, 131, 2))])
    def test_it_is_a_map_of_at_most_64(self, value):
        refused(self.check, value, "wants a map of at most 64 options, not")

    @pytest.mark.parametrize("key", ["2", -1, True, 1.0, None, b"", UINT_MAX + 2])
    def test_keys_are_uints(self, key):
        refused(self.check, {key: 0}, "option keys are integers from 0, not")

    def test_long_values_together_are_bounded(self):
        assert self.check({101: b"x" * (OPTIONS_BYTES_MAX - 3)})
        refused(self.check, {101: b"x" * (OPTIONS_BYTES_MAX - 2)}, "wants options of at most 61440 bytes")
        half = "x" * (OPTIONS_BYTES_MAX // 2)
        refused(self.check, {101: half, 1: {"stamp": half}}, "wants options of at most 61440 bytes")

    def test_bodies_are_not_counted(self):
        check = fields.options({2: fields.row(fields.binary(100_000))}, bodies=(2,))
        assert check({2: [b"x" * 100_000]})
        refused(fields.options({2: fields.row(fields.binary(100_000))}), {2: [b"x" * 100_000]})


def test_string_map_has_text_keys():
    assert fields.string_map({"a": 1}) == {"a": 1}
    refused(fields.string_map, {1: "a"}, "wants a map with text keys, not dict of 1")
    refused(fields.string_map, [])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None"),
        (True, "True"),
        (7, "7"),
        ("text\n", r"'text\n'"),
        ("x" * 50, "'" + "x" * 40 + "'"),
        (b"secret", "bytes of 6"),
        ([1, 2], "list of 2"),
        ({}, "dict of 0"),
        (1.5, "float"),
    ],
)
def test_brief_shows_type_and_size_and_short_values_only(value, words):
    assert fields.brief(value) == words
