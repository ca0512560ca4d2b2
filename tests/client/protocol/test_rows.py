"""Rows: what a batch's elements must be, and how rows are put into batches."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil.protocol import Outcome, RetryOption, TaskOption, rows
from chervil.protocol.fields import UnknownOption
from chervil.protocol.limits import BODY_MAX, FRAME_BATCH, HEADERS_MAX, ROWS_MAX

ID = bytes(range(16))
UUID_TEXT = "00010203-0405-0607-0809-0a0b0c0d0e0f"
TASK = [ID, "shop.mail", "default", 0, None, None, "json", b"[[],{}]"]
DELIVERY = [ID, 1, False, 0, 0, "shop.mail", "default", 0, None, None, "json", b"", None]
COMPLETION = [ID, 1, 1, "json", b"5", None, None]
STATUS = [ID, 7, "json", b"5", None]


def changed(row, position, value):
    return [*row[:position], value, *row[position + 1 :]]


def refusal(check, value) -> str:
    """What a check says of a value that it does not take; of an unknown option it says that otherwise."""
    with pytest.raises(ValueError) as caught:
        check(value)
    assert caught.type is ValueError
    return str(caught.value)


def verdict(check, value) -> object:
    """What a check makes of a value, or says of it."""
    try:
        return check(value)
    except ValueError as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    ("position", "value", "words"),
    [
        (0, 17, "wants an id"),
        (0, b"short", "wants an id"),
        (1, "", "wants text of 1 to 255 bytes"),
        (1, "x" * 256, "wants text of 1 to 255 bytes"),
        (1, "a\0", "wants text of 1 to 255 bytes"),
        (1, b"shop.mail", "wants text of 1 to 255 bytes"),
        (2, "", "wants text of 1 to 255 bytes"),
        (2, "é" * 128, "wants text of 1 to 255 bytes"),
        (2, None, "wants text of 1 to 255 bytes"),
        (3, 10, "priority wants an integer from 0 to 9, not 10"),
        (3, -1, "priority wants"),
        (3, True, "priority wants"),
        (4, [], "wants a map"),
        (4, {16: 101}, "option 16 wants an integer from 1 to 100"),
        (5, "text", "wants at most 65536 bytes"),
        (5, b"x" * (HEADERS_MAX + 1), "wants at most 65536 bytes"),
        (6, "", "wants text of 1 to 32 bytes"),
        (6, None, "wants text of 1 to 32 bytes"),
        (7, None, "wants at most 16777216 bytes"),
        (7, b"x" * (BODY_MAX + 1), "wants at most 16777216 bytes"),
    ],
)
def test_task_row_is_refused_for_each_field(position, value, words):
    assert words in refusal(rows.task_row, changed(TASK, position, value))


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, "order-17"),
        (1, "x" * 255),
        (1, "é" * 127),
        (2, "x" * 64),
        (3, 9),
        (4, {2: 0, 101: "kept"}),
        (5, b"x" * HEADERS_MAX),
        (6, "msgpack"),
        (7, b""),
        (7, b"x" * BODY_MAX),
    ],
)
def test_task_row_comes_back_as_it_was(position, value):
    row = changed(TASK, position, value)
    assert rows.task_row(row) == row


@pytest.mark.parametrize(
    "value", ["abcdefgh", b"abcdefgh", tuple(TASK), dict.fromkeys("abcdefgh"), 8, None, [], TASK[:7]]
)
def test_task_row_is_a_list_of_eight(value):
    assert refusal(rows.task_row, value).startswith("wants a task row of 8 fields, not")


_number = st.sampled_from([0, 9, 10, 2**63 - 1, -1, 2**63, True, 1.0, None])
_name = st.sampled_from(["t", "x" * 63, "x" * 64, "é" * 128, "", "a\0", b"t", None])


@given(
    st.tuples(
        st.sampled_from([ID, "order-17", UUID_TEXT, b"", None, 1]),
        _number,
        st.sampled_from([True, False, 0, None]),
        _number,
        _number,
        _name,
        _name,
        _number,
        st.sampled_from([None, {}, {2: "x"}, []]),
        st.sampled_from([None, b"", "h"]),
        st.sampled_from(["json", "msgpack", None, ""]),
        st.sampled_from([b"", b"x", bytearray(b"x"), "x", None]),
    ),
    st.integers(0, 11),
)
def test_quick_check_of_a_delivery_decides_as_the_plain_one(strange, position):
    for row in ([*DELIVERY[:position], strange[position], *DELIVERY[position + 1 : 12]], list(strange)):
        assert verdict(rows.delivery_row, row) == verdict(rows._delivery, list(row))


def test_task_row_is_cut_to_eight():
    assert rows.task_row([*TASK, "later", 1]) == TASK


def test_task_row_has_its_id_in_canonical_form():
    assert rows.task_row(changed(TASK, 0, UUID_TEXT)) == TASK


@given(st.text(max_size=300))
def test_quick_check_of_a_name_decides_as_the_plain_one(text):
    quick = plain = True
    try:
        rows.task_row(changed(changed(TASK, 1, text), 2, text))
    except ValueError:
        quick = False
    try:
        rows.name(text)
    except ValueError:
        plain = False
    assert quick == plain


@pytest.mark.parametrize(
    ("position", "value", "words"),
    [
        (0, 17, "wants an id"),
        (1, -1, "wants an integer from 0"),
        (1, True, "wants an integer from 0"),
        (2, 0, "knows no outcome 0"),
        (2, len(Outcome) + 1, "knows no outcome"),
        (2, 1.0, "knows no outcome float"),
        (3, "", "wants text of 1 to 32 bytes"),
        (4, "text", "wants at most"),
        (5, [], "wants a map"),
        (6, {}, "wants a list of 0 to 8192"),
        (6, [TASK[:3]], "wants a task row"),
    ],
)
def test_completion_row_is_refused_for_each_field(position, value, words):
    assert words in refusal(rows.completion_row, changed(COMPLETION, position, value))


@pytest.mark.parametrize("value", [None, tuple(COMPLETION), [ID, 1], "abcdefg"])
def test_completion_row_is_a_list_of_at_least_three(value):
    assert refusal(rows.completion_row, value).startswith("wants a completion row of at least 3 fields, not")


def test_completion_row_is_filled_and_cut_to_seven():
    assert rows.completion_row([ID, 1, 7]) == [ID, 1, 7, None, None, None, None]
    assert rows.completion_row([*COMPLETION, "later"]) == COMPLETION


def test_completion_row_has_every_id_in_canonical_form():
    row = changed(changed(COMPLETION, 0, UUID_TEXT), 6, [changed(TASK, 0, UUID_TEXT)])
    assert rows.completion_row(row) == changed(COMPLETION, 6, [TASK])


def test_completion_row_takes_another_codec():
    assert rows.completion_row(changed(COMPLETION, 3, "msgpack"))[3] == "msgpack"


def test_retry_may_change_its_times_queue_priority_and_body():
    options = {2: 5, 36: "slow", 38: 9, 40: [b"h", "json", b"x" * 200_000], 101: "kept"}
    row = [ID, 1, Outcome.RETRY.value, None, None, options, None]
    assert rows.completion_row(row) == row
    refused = refusal(rows.completion_row, changed(row, 5, {RetryOption.PRIORITY.value: 10}))
    assert "option 38 wants an integer from 0 to 9, not 10" in refused


def test_reject_may_ask_for_its_place_in_the_queue():
    row = [ID, 1, Outcome.REJECT.value, None, None, {2: True}, None]
    assert rows.completion_row(row) == row
    assert "option 2 wants a boolean, not 1" in refusal(rows.completion_row, changed(row, 5, {2: 1}))


def test_release_says_whether_a_child_had_begun():
    row = [ID, 1, Outcome.RELEASE.value, None, b"worker stopped", {2: True}, None]
    assert rows.completion_row(row) == row
    assert "option 2 wants a boolean, not 1" in refusal(rows.completion_row, changed(row, 5, {2: 1}))


def test_revoked_says_whether_it_expired():
    row = [ID, 1, Outcome.REVOKED.value, "failure", b"", {2: True}, None]
    assert rows.completion_row(row) == row
    assert "option 2 wants a boolean, not None" in refusal(rows.completion_row, changed(row, 5, {2: None}))


@pytest.mark.parametrize(
    "outcome", [Outcome.SUCCESS, Outcome.FAILURE, Outcome.REPLACE, Outcome.IGNORE, Outcome.LOST]
)
def test_other_outcomes_know_no_options(outcome):
    with pytest.raises(UnknownOption, match="option 2 is not known here"):
        rows.completion_row([ID, 1, outcome.value, None, None, {2: 1}, None])


@pytest.mark.parametrize(
    ("check", "row", "least"),
    [
        (rows.delivery_row, DELIVERY, 12),
        (rows.status_row, STATUS, 2),
        (rows.cancel_row, [ID, 1, None], 2),
        (rows.exception_row, [0, "FULL", "no room"], 3),
        (rows.verdict_row, [0, 2], 2),
        (rows.started_row, [ID, 1, True], 2),
        (rows.inventory_row, [ID, 1, 0], 3),
        (rows.resume_row, [ID, bytes(32)], 2),
    ],
)
def test_other_rows_have_their_least_and_most(check, row, least):
    assert check(list(row)) == row
    assert check([*row, "later"]) == row
    shortened = check(row[:least])
    assert shortened == [*row[:least], *[None] * (len(row) - least)]
    refused = refusal(check, row[: least - 1])
    assert refused == f"wants a row of at least {least} fields, not list of {least - 1}"


@pytest.mark.parametrize(
    ("check", "row", "said"),
    [
        (rows.status_row, [ID, 14], "wants an integer from 0 to 13, not 14"),
        (rows.verdict_row, [0, 3], "wants an integer from 1 to 2, not 3"),
        (rows.verdict_row, [0, 0], "wants an integer from 1 to 2, not 0"),
        (rows.inventory_row, [ID, 1, 2], "wants an integer from 0 to 1, not 2"),
        (rows.resume_row, [ID, bytes(31)], "wants 32 bytes, not bytes of 31"),
        (rows.delivery_row, changed(DELIVERY, 2, 0), "wants a boolean, not 0"),
        (
            rows.delivery_row,
            changed(DELIVERY, 12, [["json"]]),
            "wants a row of at least 2 fields, not list of 1",
        ),
    ],
)
def test_other_rows_check_their_fields(check, row, said):
    assert refusal(check, row) == said


def test_edges_of_a_task_are_made_canonical():
    options = {TaskOption.ON_SUCCESS.value: [[UUID_TEXT, 0]], TaskOption.ON_FAILURE.value: [UUID_TEXT]}
    assert rows.task_options(options) == {24: [[ID, 0]], 26: [ID]}


@given(
    st.text(min_size=1, max_size=255),
    st.binary(max_size=1000),
    st.none() | st.binary(max_size=1000),
    st.none() | st.dictionaries(st.integers(0, 99), st.text(max_size=50), max_size=10),
)
def test_weight_is_never_less_than_the_row(name, body, headers, options):
    name = name.encode()[:255].decode(errors="ignore") or "x"
    most = 2**63 - 1
    for row in (
        ["i" * 128, name, name, 9, options, headers, "c" * 32, body],
        ["i" * 128, most, True, most, most, name, name, 9, options, headers, "c" * 32, body, None],
        ["i" * 128, most, 9, "c" * 32, body, options, None],
    ):
        assert len(msgpack.packb(row)) <= rows.weight(body, headers, options)


def test_weight_of_a_row_without_parts_is_its_envelope():
    assert rows.weight(None, None, None) == rows.weight(b"", b"", {})


@given(st.lists(st.integers(1, FRAME_BATCH * 2), max_size=40))
def test_batches_hold_every_row_in_order_and_fit_a_frame(weights):
    numbered = [[n] for n in range(len(weights))]
    parts = list(rows.batches(numbered, weights))
    assert [row for part in parts for row in part] == numbered
    assert all(part for part in parts)
    for part in parts:
        assert len(part) == 1 or sum(weights[row[0]] for row in part) <= FRAME_BATCH


def test_batch_has_no_more_rows_than_a_frame_may():
    parts = list(rows.batches([[n] for n in range(ROWS_MAX + 1)], [1] * (ROWS_MAX + 1)))
    assert [len(part) for part in parts] == [ROWS_MAX, 1]


def test_no_rows_are_no_batch():
    assert list(rows.batches([], [])) == []


def test_a_published_task_leaves_room_for_options_that_the_broker_adds():
    most = dict.fromkeys(range(101, 101 + 2 * 62, 2), 0)
    assert rows.task_row(changed(TASK, 4, most))[4] == most
    assert "wants at most 62 options, not 63" in refusal(rows.task_row, changed(TASK, 4, most | {99: 0}))
