"""Hostile bytes against a running broker: it answers with a code or closes, lives, and serves others."""

import struct

import msgpack
import pytest

from chervil.protocol import Code
from chervil.protocol.messages import Completed, Confirm, Hello, Ok, Publish, Report, Stats, Welcome
from chervil_broker.tokens import hashed
from tests.broker.hostile import QUEUE, answers, attack, bystander, frame, framed, refusal
from tests.broker.talk import play, task

BIG = 2**63
ID = b"i" * 16
HELLO = frame([1, 1, 1, [], "attacker"])


def row(**changed):
    """A task row with some of its fields replaced."""
    fields = {
        "id": ID,
        "name": "t",
        "queue": "nowhere",
        "priority": 0,
        "options": None,
        "headers": None,
        "codec": "json",
        "body": b"[]",
    }
    return list((fields | changed).values())


def publish(**changed):
    return frame([16, 1, [row(**changed)]])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\0\0\0\0", Code.BAD_FRAME),
        (b"\xff\xff\xff\xff", Code.BAD_FRAME),
        (b"\0\0", None),
        (b"\0\0\0\x09\x92\x10", None),
        (framed(b"\xc1"), Code.BAD_FRAME),
        (framed(b"\x92\x04\xc1"), Code.BAD_FRAME),
        (framed(b"\x04"), Code.BAD_FRAME),
        (framed(b"\x80"), Code.BAD_FRAME),
        (framed(b"\x90"), Code.BAD_FRAME),
        (framed(b"\x91\x04\x04"), Code.BAD_FRAME),
        (framed(b"\xdd\xff\xff\xff\xff"), Code.BAD_FRAME),
        (framed(b"\xdd\x00\x0f\xff\xff" + b"\x04" * 1000), Code.BAD_FRAME),
        (framed(b"\x91" * 200_000 + b"\x04"), Code.BAD_FRAME),
        (framed(b"\x93\x10\x01\xda\xff\xff" + b"x" * 10), Code.BAD_FRAME),
        (framed(b"\x92\x40\xa3\xff\xfe\xfd"), Code.BAD_FRAME),
        (framed(b"\x92\x40\xd6\xff\x00\x00\x00\x00"), Code.BAD_FRAME),
        (framed(b"\x92\x40\xc7\x03\x05abc"), Code.BAD_FRAME),
        (framed(b"\x92\x40\x81\x91\x01\x02"), Code.BAD_FRAME),
        (frame([99, 1]), Code.UNKNOWN_COMMAND),
        (frame(["PUBLISH", 1]), Code.UNKNOWN_COMMAND),
        (frame([None]), Code.UNKNOWN_COMMAND),
        (frame([True, 1]), Code.UNKNOWN_COMMAND),
        (frame([-1]), Code.UNKNOWN_COMMAND),
        (frame([BIG, 1]), Code.UNKNOWN_COMMAND),
    ],
)
@pytest.mark.parametrize("greeted", [False, True], ids=["stranger", "guest"])
def test_bytes_that_are_no_message(data, code, greeted):
    async def scenario(house):
        innocent = await bystander(house)
        came = await attack(house, data, greeted=greeted)
        too_long_for_a_stranger = not greeted and len(data) > 4096
        assert refusal(came) == (Code.BAD_FRAME if too_long_for_a_stranger else code)
        await innocent.is_served()

    play(scenario)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame([16]), Code.BAD_FIELD),
        (frame([16, 1]), Code.BAD_FIELD),
        (frame([16, 1, []]), Code.BAD_FIELD),
        (frame([16, 1, 1, [row()]]), Code.BAD_FIELD),
        (frame([16, [row()], 1]), Code.BAD_FIELD),
        (frame([16, 1, [row()[:7]]]), Code.BAD_FIELD),
        (frame([16, 1, [row()[:1] + row()]]), Code.BAD_FIELD),
        (frame([16, 1, [row()] * 8193]), Code.BAD_FRAME),
        (frame([16, -1, [row()]]), Code.BAD_FIELD),
        (frame([16, BIG, [row()]]), Code.BAD_FIELD),
        (frame([16, -BIG, [row()]]), Code.BAD_FIELD),
        (frame([16, float("nan"), [row()]]), Code.BAD_FIELD),
        (frame([16, float("inf"), [row()]]), Code.BAD_FIELD),
        (frame([16, 1.0, [row()]]), Code.BAD_FIELD),
        (frame([16, True, [row()]]), Code.BAD_FIELD),
        (publish(id=b""), Code.BAD_FIELD),
        (publish(id="x" * 129), Code.BAD_FIELD),
        (publish(id=b"x" * 15), Code.BAD_FIELD),
        (publish(id=None), Code.BAD_FIELD),
        (publish(id=float("nan")), Code.BAD_FIELD),
        (publish(name=""), Code.BAD_FIELD),
        (publish(name="a\0b"), Code.BAD_FIELD),
        (publish(name="n" * 65_536), Code.BAD_FIELD),
        (publish(name=b"bytes"), Code.BAD_FIELD),
        (publish(queue="q" * 65_536), Code.BAD_FIELD),
        (publish(queue="\0"), Code.BAD_FIELD),
        (publish(priority=10), Code.BAD_FIELD),
        (publish(priority=-1), Code.BAD_FIELD),
        (publish(priority=float("nan")), Code.BAD_FIELD),
        (publish(codec="c" * 33), Code.BAD_FIELD),
        (publish(body="text"), Code.BAD_FIELD),
        (publish(headers=b"h" * 65_537), Code.BAD_FIELD),
        (publish(options={2: -1}), Code.BAD_FIELD),
        (publish(options={2: BIG}), Code.BAD_FIELD),
        (publish(options={2: float("nan")}), Code.BAD_FIELD),
        (publish(options={-2: 1}), Code.BAD_FIELD),
        (publish(options={"2": 1}), Code.BAD_FIELD),
        (publish(options={2.0: 1}), Code.BAD_FIELD),
        (publish(options={16: 0}), Code.BAD_FIELD),
        (publish(options={16: 101}), Code.BAD_FIELD),
        (publish(options={10: 1}), Code.BAD_FIELD),
        (publish(options={44: 1}), Code.UNKNOWN_OPTION),
        (publish(options=dict.fromkeys(range(101, 301, 2), 1)), Code.BAD_FIELD),
        (publish(options={13: {"s": "x" * 70_000}}), Code.BAD_FIELD),
        (frame([32, 1, []]), Code.BAD_FIELD),
        (frame([32, 1, [ID] * 8193]), Code.BAD_FIELD),
        (frame([35, [float("nan")]]), Code.BAD_FIELD),
        (frame([48, 1, ["q"] * 1025]), Code.BAD_FIELD),
        (frame([48, 1, ["q\0"]]), Code.BAD_FIELD),
        (frame([48, 1, ["q"], None, {2: 1}]), Code.UNKNOWN_OPTION),
        (frame([49, -1]), Code.BAD_FIELD),
        (frame([49, BIG]), Code.BAD_FIELD),
        (frame([49, float("nan")]), Code.BAD_FIELD),
        (frame([51, [[ID, -1]]]), Code.BAD_FIELD),
        (frame([51, [[ID]]]), Code.BAD_FIELD),
        (frame([52, 1, [[ID, 1, 0]]]), Code.BAD_FIELD),
        (frame([52, 1, [[ID, 1, 99]]]), Code.BAD_FIELD),
        (frame([52, 1, [[ID, BIG, 1]]]), Code.BAD_FIELD),
        (frame([52, 1, [[ID, 1, 3, None, None, {2: -5}]]]), Code.BAD_FIELD),
        (frame([52, 1, [[ID, 1, 1, None, None, {2: 5}]]]), Code.UNKNOWN_OPTION),
        (frame([52, 1, [[ID, 1, 3, None, None, {40: [None, "json"]}]]]), Code.BAD_FIELD),
        (frame([52, 1, [[ID, 1, 1, None, None, None, [row()]]]]), Code.NOT_IMPLEMENTED),
        (frame([67, 1, [ID], True, 65]), Code.BAD_FIELD),
        (frame([67, 1, [ID], True, 0]), Code.BAD_FIELD),
        (frame([69, 1, "dead", None, 0]), Code.BAD_FIELD),
        (frame([69, 1, "dead", None, 1001]), Code.BAD_FIELD),
        (frame([3, ""]), Code.BAD_FIELD),
    ],
)
def test_fields_that_are_wrong_missing_or_too_many(data, code):
    async def scenario(house):
        innocent = await bystander(house)
        assert refusal(await attack(house, data)) == code
        await innocent.is_served()

    play(scenario)


@pytest.mark.parametrize(
    "array",
    [
        [2, 1, [], ID, ID, b"s" * 32, False, 1],
        [5, None, "FULL", "no"],
        [6, 1],
        [17, 1, 1],
        [18, 1],
        [33, 1, []],
        [34, []],
        [50, []],
        [53, 1],
        [54, []],
        [65, 1, {}],
        [1, 1, 1, [], "again"],
        [7, 1, [], 0],
    ],
)
def test_commands_from_the_wrong_side_or_out_of_turn(array):
    async def scenario(house):
        innocent = await bystander(house)
        assert refusal(await attack(house, frame(array))) == Code.BAD_STATE
        await innocent.is_served()

    play(scenario)


@pytest.mark.parametrize(
    "data",
    [
        publish(),
        frame([4]),
        frame([64, 1]),
        frame([3, "DONE"]),
        frame([51, []]),
        frame([7, 1, [], 0]),
    ],
)
def test_frames_before_hello(data):
    async def scenario(house):
        innocent = await bystander(house)
        assert refusal(await attack(house, data, greeted=False)) == Code.BAD_STATE
        await innocent.is_served()

    play(scenario)


def test_a_first_frame_with_more_fields_than_hello_has():
    async def scenario(house):
        innocent = await bystander(house)
        came = await attack(house, frame([1, 1, 1, [], "me", None, None, None, None, 1]), greeted=False)
        assert refusal(came) == Code.BAD_FRAME
        await innocent.is_served()

    play(scenario)


@pytest.mark.parametrize("after", [publish(), frame([3, "DONE"]), HELLO, b"\0\0\0\0"])
def test_frames_after_the_end_are_not_answered(after):
    async def scenario(house):
        innocent = await bystander(house)
        came = await attack(house, frame([3, "DONE"]), frame([3, "DONE"]), after)
        assert [type(answer).__name__ for answer in came] in (["Goodbye"], ["Error"])
        came = await attack(house, b"\0\0\0\0" + after)
        assert [type(answer).__name__ for answer in came] == ["Error"]
        await innocent.is_served()

    play(scenario)


def test_a_hello_that_comes_twice_with_another_token():
    async def scenario(house):
        talker = await house.connect()
        await talker.hello(token="right")
        talker.send_raw(frame([1, 1, 1, [], "me", "wrong"]))
        assert refusal(await answers(talker)) == Code.BAD_STATE

    play(scenario, token_hash=hashed("right"), needs_token=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"queue": "../../etc/passwd"},
        {"queue": "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe"},
        {"queue": "\n[2026] INFO forged"},
        {"name": "\x1b[31mred"},
        {"name": "\N{PILE OF POO}" * 63},
        {"id": "\N{RIGHT-TO-LEFT OVERRIDE}"},
        {"options": {2: 2**63 - 1}},
        {"options": {4: 2**63 - 1, 8: 2**63 - 1}},
        {"options": {34: 2**63 - 1}},
        {"options": {101: float("nan"), 103: [[[[]]]], 105: {"a": {1: None}}}},
    ],
)
def test_strange_values_within_the_rules_are_kept_as_they_are(changed):
    """They are names and numbers like others: nothing is made of them but entries in tables."""

    async def scenario(house):
        innocent = await bystander(house)
        strange = row(**changed)
        confirm, report = await attack(house, frame([16, 1, [strange]]), frame([64, 2]))
        assert (type(confirm), confirm.accepted, confirm.exceptions) == (Confirm, 1, None)
        assert type(report) is Report
        assert strange[2] in [queue["name"] for queue in report.report["queues"]]
        came = await attack(house, frame([66, 1, []]), frame([37, 2, [strange[0]]]))
        assert came == [Ok(1, 1), Ok(2, 1)]
        await innocent.is_served()

    play(scenario)


def test_a_field_that_is_doubled_counts_once():
    """msgpack maps may repeat a key: the last one counts. Rows have no room for a second field."""

    async def scenario(house):
        options = b"\x82\x22\x01\x22\x02"  # {34: 1, 34: 2}
        head = msgpack.packb(row())[: -len(b"\xc0\xc0\xa4json\xc4\x02[]")]
        payload = b"\x93\x10\x01\x91" + head + options + b"\xc0\xa4json\xc4\x02[]"
        (confirm,) = await attack(house, framed(payload))
        assert confirm == Confirm(1, 1)
        asker = await house.guest()
        asker.send_raw(frame([36, 1, [ID]]))
        (status,) = await answers(asker)
        assert status.tasks[0][4][7] == 2

    play(scenario)


def test_a_byte_at_a_time_is_served():
    async def scenario(house):
        innocent = await bystander(house)
        data = HELLO + publish(queue=QUEUE) + frame([3, "DONE"])
        came = await attack(house, *[bytes([byte]) for byte in data], greeted=False)
        assert [type(answer).__name__ for answer in came] == ["Welcome", "Confirm", "Goodbye"]
        (delivery,) = await innocent.delivered()
        assert delivery[0] == ID
        await innocent.complete(delivery)
        await innocent.is_served()

    play(scenario)


def test_frames_may_be_split_at_every_byte():
    async def scenario(house):
        innocent = await bystander(house)
        data = HELLO + frame([64, 5]) + frame([35, [ID]]) + frame([3, "DONE"])
        for at in range(1, len(data)):
            came = await attack(house, data[:at], data[at:], greeted=False)
            assert [type(answer).__name__ for answer in came] == ["Welcome", "Report", "Goodbye"]
        await innocent.is_served()

    play(scenario)


def test_frames_may_end_at_every_byte():
    async def scenario(house):
        innocent = await bystander(house)
        data = HELLO + publish(body=b"never whole")
        for at in range(len(data)):
            came = await attack(house, data[:at], greeted=False)
            assert [type(answer) for answer in came] in ([], [Welcome])
        await innocent.is_served()

    play(scenario)


def test_ten_thousand_tiny_frames_in_one_read():
    async def scenario(house):
        innocent = await bystander(house)
        came = await attack(house, frame([4]) * 10_000 + frame([35, []]) * 10_000 + frame([64, 7]))
        assert [answer.request for answer in came] == [7]
        came = await attack(house, frame([37, 1, []]) * 10_000)
        assert came == [Ok(1, 0)] * 10_000
        await innocent.is_served()

    play(scenario)


@pytest.mark.parametrize("lease", [0, 1, 2, 2**63 - 1])
@pytest.mark.parametrize("outcome", [1, 2, 3, 5, 7, 8, 9])
def test_completions_of_leases_that_are_not_theirs(lease, outcome):
    """Unknown ids, tasks that another session has, and leases that were never given."""

    async def scenario(house):
        innocent = await bystander(house)
        innocent.talker.send(Publish(1000, [task(ID, queue=QUEUE)]))
        await innocent.talker.expect(Confirm)
        (delivery,) = await innocent.delivered()
        rows = [[id_, lease, outcome, "json", b"mine"] for id_ in (ID, b"unknown", "x")]
        rows[1][0] = b"u" * 16
        (completed,) = await attack(house, frame([52, 1, rows]))
        assert completed == Completed(1, [[0, 2], [1, 2], [2, 2]])
        assert await attack(house, frame([51, [[ID, lease]]])) == []
        await innocent.complete(delivery)
        await innocent.is_served()

    play(scenario)


def test_no_credit_and_endless_credit():
    async def scenario(house):
        innocent = await bystander(house)
        data = frame([48, 1, ["elsewhere"]]) + frame([49, 2**63 - 1]) + frame([49, 0]) + frame([3, "DONE"])
        came = await attack(house, data)
        assert [type(answer).__name__ for answer in came] == ["Ok", "Goodbye"]
        await innocent.is_served()

    play(scenario)


def test_ten_thousand_queues_leave_nothing():
    """Queue names come from outside; a queue is forgotten with its last task."""

    async def scenario(house):
        innocent = await bystander(house)
        guest = await house.guest()
        for batch in range(10):
            rows = [row(id=struct.pack(">QQ", batch, n), queue=f"q{batch}-{n}") for n in range(1000)]
            guest.send(Publish(batch, rows))
            assert (await guest.expect(Confirm)).accepted == 1000
        guest.send_raw(frame([66, 1, []]))
        assert await guest.expect(Ok) == Ok(1, 10_000)
        for batch in range(10):
            guest.send_raw(frame([37, 3, [struct.pack(">QQ", batch, n) for n in range(1000)]]))
            assert await guest.expect(Ok) == Ok(3, 1000)
        guest.send(Stats(2))
        assert [queue["name"] for queue in (await guest.expect(Report)).report["queues"]] == [QUEUE]
        guest.writer.close()
        await innocent.is_served()

    play(scenario)


def test_hellos_that_promise_nothing():
    async def scenario(house):
        innocent = await bystander(house)
        for hello, code in [
            ([1, 1, 1, [], ""], Code.BAD_FIELD),
            ([1, 1, 1, [], "n" * 256], Code.BAD_FIELD),
            ([1, 1, 1, [], "a\0b"], Code.BAD_FIELD),
            ([1, 1, 1, ["f" * 65], "me"], Code.BAD_FIELD),
            ([1, 1, 1, ["f"] * 33, "me"], Code.BAD_FIELD),
            ([1, -1, BIG, [], "me"], Code.BAD_FIELD),
            ([1, 9, 1, [], "me"], Code.VERSION_UNSUPPORTED),
            ([1, 1, 1, [], "me", "t" * 256], Code.BAD_FIELD),
            ([1, 1, 1, [], "me", None, None, [ID, b"short"]], Code.BAD_FIELD),
            ([1, 1, 1, [], "me", None, None, [ID]], Code.BAD_FIELD),
            ([1, 1, 1, [], "me", None, None, None, {2: 1}], Code.UNKNOWN_OPTION),
            ([1, 1, 1, [], "m" * 5000], Code.BAD_FRAME),
        ]:
            assert refusal(await attack(house, frame(hello), greeted=False)) == code, hello
        (welcome,) = await attack(
            house, frame([1, 1, 1, [], "me", None, None, [ID, b"s" * 32], None]), greeted=False
        )
        assert (type(welcome), welcome.resumed) == (Welcome, False)
        await innocent.is_served()

    play(scenario)


def test_a_stranger_sees_nothing_of_the_token():
    async def scenario(house):
        talker = await house.connect()
        talker.send(Hello(1, 1, [], "me", "close but wrong"))
        (error,) = await answers(talker)
        assert error.code == Code.AUTH_FAILED
        assert "close" not in error.message

    play(scenario, token_hash=hashed("right"), needs_token=True)
