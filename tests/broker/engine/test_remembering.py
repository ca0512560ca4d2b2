from chervil.protocol import Stage
from chervil_broker.engine.charges import Charges, text_bytes
from chervil_broker.engine.remembering import (
    ID_BYTES,
    REVOKED_ID_BYTES,
    REVOKED_PART,
    Forgotten,
    RevokedIds,
)
from tests.broker.engine.rig import HOUR, SECOND, Rig


def test_newest_ids_are_remembered_up_to_the_limit():
    forgotten = Forgotten(3)
    forgotten.add(["a", "b"], 10)
    forgotten.add(["c", "d"], 30)
    assert ("a" in forgotten, "b" in forgotten, "d" in forgotten) == (False, True, True)
    assert (len(forgotten), forgotten.horizon(35)) == (3, 25)


def test_nothing_is_remembered_within_a_limit_of_nothing():
    forgotten = Forgotten(0)
    forgotten.add(["a"], 10)
    assert (len(forgotten), forgotten.horizon(35)) == (0, 0)


def test_revoked_id_is_remembered_anew_and_taken_once():
    charges = Charges()
    revoked = RevokedIds(2, 10**9, charges)
    for id_, by in (("a", "x"), ("b", "x"), ("a", "y"), ("c", "z")):
        revoked.add(id_, by)
    assert ("b" in revoked, "a" in revoked, len(revoked)) == (False, True, 2)
    assert revoked.take("a") == "y"
    assert "a" not in revoked
    assert charges.bytes == REVOKED_ID_BYTES + text_bytes("z")


def test_long_ids_and_names_count_for_what_they_take():
    forgotten = Forgotten(10)
    forgotten.add([f"{number:0128}" for number in range(20)], 10)
    assert len(forgotten) == 10 * ID_BYTES // (ID_BYTES + text_bytes("0" * 128)) == 3
    charges = Charges()
    revoked = RevokedIds(50_000, 64 << 20, charges)
    for number in range(30_000):
        revoked.add(f"{number:0128}", "n" * 255)
    assert charges.bytes <= (64 << 20) // REVOKED_PART
    assert len(revoked) == (64 << 20) // REVOKED_PART // (REVOKED_ID_BYTES + 128 + 64 + 255 + 64)


def test_publish_of_a_remembered_id_makes_nothing_and_frees_the_body():
    rig = Rig(results_limit=4 * 2 * ID_BYTES)
    worker = rig.worker("q", credit=9)
    rig.publish("a", "b", "c")
    rig.succeed(worker, *rig.lease())
    rig.advance(25 * HOUR)
    rig.pump()
    rig.advance(2 * SECOND)
    assert rig.engine.stats()["dedup"] == {
        "ids": 2,
        "limit": 2,
        "horizon_ms": 25 * 3_600_000 + 2000 - 25 * 3_600_000,
    }
    confirm = rig.publish("a", "b", "c")
    assert confirm.accepted == 3
    assert [row[:2] for row in confirm.exceptions] == [[1, "DUPLICATE"], [2, "DUPLICATE"]]
    rig.pump()
    assert len(rig.live) == 1
    assert rig.view("b") == ("b", Stage.EVICTED, None, None, None, None)
    rig.engine.watch(rig.publisher, 1, ["b"])
    assert rig.engine._state.watchers == {}
