"""The checks: one for each field type of protocol.md, section 2."""

import pytest

from chervil.protocol import fields
from chervil.protocol.limits import OPTIONS_BYTES_MAX, UINT_MAX

ID = bytes(range(16))


def refusal(check, value) -> str:
    """What a check says of a value that it does not take; of an unknown option it says that otherwise."""
    with pytest.raises(ValueError) as caught:
        check(value)
    assert caught.type is ValueError
    return str(caught.value)


@pytest.mark.parametrize("value", [0, 1, UINT_MAX])
def test_uint_takes_0_to_the_largest_signed_64_bit_number(value):
    assert fields.uint(value) == value


@pytest.mark.parametrize("value", [-1, UINT_MAX + 1, True, 1.0, "1", None])
def test_uint_refuses_everything_else(value):
    assert refusal(fields.uint, value) == f"wants an integer from 0 to 2^63-1, not {fields.brief(value)}"


def test_boolean_takes_no_numbers():
    assert fields.boolean(True) is True
    assert fields.boolean(False) is False
    assert refusal(fields.boolean, 1) == "wants a boolean, not 1"


def test_text_is_measured_in_bytes():
    assert fields.text(4)("éé") == "éé"
    assert refusal(fields.text(4), "ééé") == r"wants text of 1 to 4 bytes without NUL, not '\xe9\xe9\xe9'"


@pytest.mark.parametrize("value", ["", "a\0", "abcde", b"abc", 3, None])
def test_text_is_neither_empty_nor_long_nor_has_nul(value):
    said = refusal(fields.text(4), value)
    assert said == f"wants text of 1 to 4 bytes without NUL, not {fields.brief(value)}"


def test_secret_is_text_that_no_message_repeats():
    assert fields.secret(10)("hunter2") == "hunter2"
    assert refusal(fields.secret(5), "hunter2") == "wants a secret of 1 to 5 bytes without NUL"


def test_binary_takes_up_to_its_limit():
    assert fields.binary(3)(b"") == b""
    assert fields.binary(3)(b"abc") == b"abc"
    assert refusal(fields.binary(3), b"abcd") == "wants at most 3 bytes, not bytes of 4"
    assert refusal(fields.binary(3), "abc") == "wants at most 3 bytes, not 'abc'"


def test_exactly_takes_one_size():
    assert fields.exactly(2)(b"ab") == b"ab"
    assert refusal(fields.exactly(2), b"abc") == "wants 2 bytes, not bytes of 3"
    assert refusal(fields.exactly(2), "ab") == "wants 2 bytes, not 'ab'"


def test_task_id_comes_back_in_its_canonical_form():
    assert fields.task_id(ID) == ID
    assert fields.task_id("order-17") == "order-17"
    assert fields.task_id("00010203-0405-0607-0809-0a0b0c0d0e0f") == ID
    assert refusal(fields.task_id, 17) == "wants an id (16 bytes, or text of 1 to 128 bytes), not 17"


def test_optional_takes_nil_too():
    assert fields.optional(fields.uint)(None) is None
    assert fields.optional(fields.uint)(3) == 3
    assert refusal(fields.optional(fields.uint), "3") == "wants an integer from 0 to 2^63-1, not '3'"


def test_list_holds_between_its_two_limits():
    check = fields.list_of(fields.uint, 2, at_least=1)
    assert check([1]) == [1]
    assert check([1, 2]) == [1, 2]
    for value in ([], [1, 2, 3], (1,), "ab", {1: 2}):
        assert refusal(check, value) == f"wants a list of 1 to 2, not {fields.brief(value)}"
    assert refusal(check, ["x"]) == "wants an integer from 0 to 2^63-1, not 'x'"


def test_list_holds_what_the_check_made_of_its_elements():
    assert fields.list_of(fields.task_id, 1)(["00010203-0405-0607-0809-0a0b0c0d0e0f"]) == [ID]


def test_row_has_all_its_fields():
    check = fields.row(fields.uint, fields.boolean)
    assert check([1, True]) == [1, True]
    assert refusal(check, [1]) == "wants a row of at least 2 fields, not list of 1"
    assert refusal(check, (1, True)) == "wants a row of at least 2 fields, not tuple"
    assert refusal(check, [True, 1]) == "wants an integer from 0 to 2^63-1, not True"


def test_row_is_filled_with_nil_and_cut():
    check = fields.row(fields.uint, fields.optional(fields.uint), fields.optional(fields.uint), required=1)
    assert check([1]) == [1, None, None]
    assert check([1, 2, 3, "later"]) == [1, 2, 3]


def test_field_that_must_be_there_is_not_filled_with_nil():
    check = fields.row(fields.uint, fields.uint, required=1)
    assert refusal(check, [1]) == "wants an integer from 0 to 2^63-1, not None"


class TestOptions:
    check = staticmethod(fields.options({2: fields.uint, 4: fields.task_id, 1: fields.string_map}))

    def test_known_ones_are_checked_and_made_canonical(self):
        assert self.check({2: 7, 4: "00010203-0405-0607-0809-0a0b0c0d0e0f"}) == {2: 7, 4: ID}
        assert refusal(self.check, {2: "7"}) == "option 2 wants an integer from 0 to 2^63-1, not '7'"

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
        assert refusal(self.check, value) == f"wants a map of at most 64 options, not {fields.brief(value)}"

    @pytest.mark.parametrize("key", ["2", -1, True, 1.0, None, b"", UINT_MAX + 2])
    def test_keys_are_uints(self, key):
        assert refusal(self.check, {key: 0}) == f"option keys are integers from 0, not {fields.brief(key)}"

    def test_long_values_together_are_bounded(self):
        assert self.check({101: b"x" * (OPTIONS_BYTES_MAX - 3)})
        said = refusal(self.check, {101: b"x" * (OPTIONS_BYTES_MAX - 2)})
        assert said == "wants options of at most 61440 bytes, not 61441"
        half = "x" * (OPTIONS_BYTES_MAX // 2)
        said = refusal(self.check, {101: half, 1: {"stamp": half}})
        assert said == "wants options of at most 61440 bytes, not 61453"

    def test_bodies_are_not_counted(self):
        check = fields.options({2: fields.row(fields.binary(100_000))}, bodies=(2,))
        assert check({2: [b"x" * 100_000]})
        check = fields.options({2: fields.row(fields.binary(100_000))})
        said = refusal(check, {2: [b"x" * 100_000]})
        assert said == "wants options of at most 61440 bytes, not 100006"


def test_string_map_has_text_keys():
    assert fields.string_map({"a": 1}) == {"a": 1}
    assert refusal(fields.string_map, {1: "a"}) == "wants a map with text keys, not dict of 1"
    assert refusal(fields.string_map, []) == "wants a map with text keys, not list of 0"


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
