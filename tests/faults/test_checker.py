"""The checker catches each breach that is planted, and nothing in a run in which all is well."""

import pytest

from tests.faults.checker import check
from tests.faults.history import (
    Death,
    End,
    Ends,
    Final,
    Given,
    History,
    Publication,
    Rerun,
    Start,
    Told,
)
from tests.faults.verdict import Invariant, Repeat, Verdict

ONCE = "once"
LOST, INVENTED, UNFLAGGED, DOUBLED, AGAIN = Invariant


def meaning(task: str, arguments: list) -> Ends:
    if task == ONCE:
        return Ends(arguments[0] * 2, frozenset({"SUCCESS", "FAILURE"}), once=True)
    return Ends(arguments[0] * 2)


def published(id_="a", *, x=1, at=0, told=Told.CONFIRMED, told_at=10, task="twice") -> Publication:
    return Publication(id_, task, [x], at, told, told_at, "p1")


def started(id_="a", *, x=1, flagged=False, retries=0, pid=7, at=20, task="twice") -> Start:
    return Start(id_, task, [x], flagged, 0, retries, pid, at)


def ended(id_="a", retries=0, pid=7, at=30, how="returned") -> End:
    return End(id_, retries, pid, at, how)


def final(id_="a", stage="SUCCESS", value=2, at=1000) -> Final:
    return Final(id_, stage, value, 0, at)


def given(id_="a", stage="SUCCESS", value=2, at=50) -> Given:
    return Given(id_, stage, value, at)


def history(**parts: list) -> History:
    """A run of one task in which all is well, with some of its parts replaced."""
    well = {"publications": [published()], "starts": [started()], "ends": [ended()], "finals": [final()]}
    return History(**(well | parts))


def only(verdict: Verdict, invariant: Invariant) -> str:
    """The text of the one breach there is."""
    broken = {each: texts for each, texts in verdict.breaches.items() if texts}
    assert list(broken) == [invariant], verdict.text()
    (text,) = broken[invariant]
    assert not verdict.ok
    assert text in verdict.text()
    return text


def test_run_in_which_all_is_well_holds():
    verdict = check(history(given=[given()], known=1), meaning)
    assert verdict.ok
    assert verdict.told == {"confirmed": 1}
    assert (verdict.ran, verdict.starts, verdict.repeats.total(), verdict.held) == (1, 1, 0, 0)
    assert "lost 0, unflagged repeats 0" in verdict.text()
    assert verdict.text().endswith("verdict: holds")


# I1


@pytest.mark.parametrize("finals", [[], [final(stage="UNKNOWN", value=None)]])
def test_confirmed_id_that_the_broker_does_not_know_is_lost(finals):
    assert "confirmed to p1 and is gone" in only(check(history(finals=finals), meaning), LOST)


def test_confirmed_duplicate_counts_as_confirmed():
    again = published(told=Told.DUPLICATE)
    assert "is gone" in only(check(history(publications=[again], finals=[]), meaning), LOST)


def test_unconfirmed_id_may_be_unknown_or_there():
    unconfirmed = published(told=Told.UNCONFIRMED, told_at=None)
    gone = History(publications=[unconfirmed], finals=[final(stage="UNKNOWN", value=None)])
    assert check(gone, meaning).ok
    assert check(history(publications=[unconfirmed]), meaning).ok


def test_confirmed_id_that_is_still_held_is_not_lost():
    verdict = check(History([published()], finals=[final(stage="QUEUED", value=None)]), meaning)
    assert verdict.ok
    assert (verdict.held, verdict.confirmed, verdict.completed) == (1, 1, 0)


def test_waiter_told_that_a_confirmed_id_is_unknown_is_a_loss():
    said = given(stage="UNKNOWN", value=None)
    assert "a waiter was told" in only(check(history(given=[said]), meaning), LOST)


def test_waiter_told_that_an_id_is_unknown_before_it_was_confirmed_lost_nothing():
    said = given(stage="UNKNOWN", value=None, at=published().told_at)
    assert check(history(given=[said]), meaning).ok


def test_evicted_result_is_a_record():
    assert check(history(finals=[final(stage="EVICTED", value=None)]), meaning).ok


# I2


def test_id_that_nobody_published_and_that_ran_is_invented():
    stranger = started(id_="b")
    assert "b ran, and nobody" in only(check(history(starts=[started(), stranger]), meaning), INVENTED)


def test_id_that_nobody_published_and_that_is_known_is_invented():
    assert "b is known" in only(check(history(finals=[final(), final("b")]), meaning), INVENTED)
    assert check(history(finals=[final(), final("b", "UNKNOWN")]), meaning).ok


def test_more_tasks_than_ids_are_invented():
    assert "knows 2 tasks" in only(check(history(known=2), meaning), INVENTED)


def test_other_arguments_are_altered():
    assert "ran as" in only(check(history(starts=[started(x=3)]), meaning), INVENTED)
    assert "ran as" in only(check(history(starts=[started(task="thrice")]), meaning), INVENTED)


def test_other_result_is_altered_whether_kept_or_given():
    assert "ended as SUCCESS 3" in only(check(history(finals=[final(value=3)]), meaning), INVENTED)
    assert "given SUCCESS 3" in only(check(history(given=[given(value=3)]), meaning), INVENTED)


def test_success_that_no_body_returned_is_invented():
    assert "no body of it returned" in only(check(history(ends=[]), meaning), INVENTED)
    retried = ended(how="retry")
    assert "no body" in only(check(history(ends=[retried]), meaning), INVENTED)


def test_outcome_that_a_task_cannot_have_is_invented():
    assert "ended as FAILURE" in only(check(history(finals=[final(stage="FAILURE")]), meaning), INVENTED)


def test_dead_letter_is_a_record_without_a_value():
    assert check(history(finals=[final(stage="DEAD", value=None)], ends=[]), meaning).ok


def test_refused_task_must_neither_run_nor_be_held():
    refused = [published(told=Told.REFUSED)]
    assert "was refused" in only(check(History(refused, finals=[final()]), meaning), INVENTED)
    assert "was refused" in only(check(History(refused, [started()]), meaning), INVENTED)
    assert check(History(refused), meaning).ok


# I3


def test_second_unflagged_start_is_an_unflagged_repeat():
    twice = [started(), started(pid=8, at=40)]
    assert "unflagged 2 times" in only(check(history(starts=twice), meaning), UNFLAGGED)


def test_flagged_second_start_is_a_repeat_and_no_breach():
    verdict = check(history(starts=[started(), started(flagged=True, pid=8, at=40)]), meaning)
    assert verdict.ok
    assert verdict.repeats.total() == 1


def test_unflagged_start_may_come_late_but_only_one():
    held_up = [started(flagged=True, pid=8, at=19), started(at=20)]
    assert check(history(starts=held_up), meaning).ok


def test_retry_is_a_new_run():
    retried = history(
        starts=[started(), started(retries=1, at=40)],
        ends=[ended(how="retry"), ended(retries=1, at=45)],
    )
    verdict = check(retried, meaning)
    assert verdict.ok
    assert not verdict.repeats


def test_retry_that_nobody_asked_for_is_an_unflagged_repeat():
    retried = history(starts=[started(), started(retries=1, at=40)])
    assert "did not ask for" in only(check(retried, meaning), UNFLAGGED)


def test_rerun_is_a_new_run():
    again = [started(), started(pid=8, at=120)]
    rerun = [Rerun("a", 100)]
    assert check(history(starts=again, given=[given()], reruns=rerun), meaning).ok
    late = [*again, started(pid=9, at=140)]
    assert "unflagged 2" in only(check(history(starts=late, reruns=rerun), meaning), UNFLAGGED)


def test_task_of_at_most_once_must_not_start_again_even_flagged():
    starts = [started(task=ONCE), started(task=ONCE, flagged=True, pid=8, at=40)]
    once = history(publications=[published(task=ONCE)], starts=starts)
    assert "at most once" in only(check(once, meaning), UNFLAGGED)


@pytest.mark.parametrize(
    ("rest", "deaths", "cause"),
    [
        ([], [], Repeat.DEATH),
        ([started("b", pid=7, at=60)], [], Repeat.NOTHING),
        ([started("b", pid=7, at=31)], [Death(7, 33)], Repeat.DEATH),
        ([started("b", pid=7, at=60)], [Death(7, 90)], Repeat.NOTHING),
    ],
)
def test_repeats_are_counted_by_what_became_of_the_first_process(rest, deaths, cause):
    twice = lived_on(rest, deaths=deaths)
    verdict = check(twice, meaning, death_slack=5)
    assert verdict.ok
    assert verdict.repeats == {cause: 1}
    assert len(verdict.ran_twice) == (cause is not Repeat.DEATH)


@pytest.mark.parametrize(
    ("kills", "cuts", "cause"),
    [
        ([], [30], Repeat.CUT),
        ([30], [31], Repeat.CUT),
        ([30], [], Repeat.BROKER),
        ([30], [19, 41], Repeat.BROKER),
        ([19, 41], [19, 41], Repeat.NOTHING),
    ],
)
def test_repeats_whose_process_lived_on_are_told_with_what_was_done_in_between(kills, cuts, cause):
    verdict = check(lived_on([started("b", pid=7, at=60)], broker_kills=kills, cuts=cuts), meaning)
    assert verdict.ok
    assert verdict.repeats == {cause: 1}
    (text,) = verdict.ran_twice
    assert f"a ran twice {cause}" in text
    assert f"broker kills: {sum(at == 30 for at in kills)}, cuts: " in text
    assert text in verdict.text()


def test_starts_that_were_flagged_are_counted():
    verdict = check(lived_on([]), meaning)
    assert (verdict.starts, verdict.flagged) == (2, 1)
    assert "confirmed 2, completed 2, redelivered 1, lost 0" in verdict.text()
    assert "repeated 1: after a death 1, after a cut 0, after a broker kill 0" in verdict.text()


def lived_on(rest: list[Start], **parts: list) -> History:
    """A task that was started at 20 and at 40, and another one with these starts."""
    return history(
        publications=[published(), published("b")],
        starts=[started(), started(flagged=True, pid=8, at=40), *rest],
        ends=[ended(), ended(pid=8, at=45), ended("b", pid=9, at=61)],
        finals=[final(), final("b")],
        **parts,
    )


def test_process_that_died_in_the_body_explains_a_repeat():
    starts = [started(), started(flagged=True, pid=8, at=40)]
    verdict = check(history(starts=starts, ends=[ended(pid=8, at=45)]), meaning)
    assert verdict.repeats == {Repeat.DEATH: 1}


# I4


def repeat(x=5, at=15, told_at=18) -> Publication:
    return published(x=x, at=at, told_at=told_at)


def test_repeated_publish_that_changes_nothing_is_none():
    verdict = check(history(publications=[published(), repeat()]), meaning)
    assert verdict.ok
    assert verdict.told == {"confirmed": 2}


def test_run_of_a_repeated_publish_is_a_second_task():
    both = [published(), repeat()]
    ran = [started(), started(x=5, flagged=True, pid=8, at=40)]
    text = only(check(history(publications=both, starts=ran), meaning), DOUBLED)
    assert "repeated publish" in text


def test_result_of_a_repeated_publish_is_a_second_task():
    both = [published(), repeat()]
    text = only(check(history(publications=both, finals=[final(value=10)]), meaning), DOUBLED)
    assert "repeated publish" in text


def test_unflagged_second_start_of_an_id_published_twice_breaks_both():
    both = [published(), repeat(x=1)]
    twice = [started(), started(pid=8, at=40)]
    verdict = check(history(publications=both, starts=twice), meaning)
    assert (verdict.count(UNFLAGGED), verdict.count(DOUBLED)) == (1, 1)


def test_either_of_two_that_crossed_may_be_the_task():
    crossed = [published(told_at=100), repeat(told_at=90)]
    assert check(history(publications=crossed), meaning).ok
    five = history(publications=crossed, starts=[started(x=5)], finals=[final(value=10)])
    assert check(five, meaning).ok


# I5


def test_start_after_a_result_was_seen_is_a_run_after_the_end():
    late = [started(), started(flagged=True, pid=8, at=80)]
    seen = history(starts=late, given=[given(at=50)])
    assert "started 30 after" in only(check(seen, meaning), AGAIN)
    assert check(seen, meaning, slack=30).ok


def test_stage_that_changed_after_it_was_seen_is_a_breach():
    changed = history(given=[given()], finals=[final(stage="DEAD", value=None)])
    assert "was seen SUCCESS and is DEAD" in only(check(changed, meaning), AGAIN)


def test_rerun_allows_one_more_run_after_the_end_and_no_third():
    runs = [started(), started(pid=8, at=120)]
    seen = [given(at=50), given(at=150)]
    rerun = [Rerun("a", 100)]
    assert check(history(starts=runs, given=seen, reruns=rerun), meaning).ok
    third = [*runs, started(flagged=True, pid=9, at=200)]
    broken = check(history(starts=third, given=seen, reruns=rerun), meaning)
    assert "started 50 after" in only(broken, AGAIN)


def test_only_the_first_offenders_are_listed():
    many = [published(f"t{n}") for n in range(10)]
    text = check(History(many), meaning).text(first=3)
    assert "lost 10" in text
    assert text.count("is gone") == 3


def test_histories_of_several_processes_add_up():
    whole = History()
    for part in (
        History([published()], reruns=[Rerun("z", 1)], deaths=[Death(1, 1)]),
        History(starts=[started()], ends=[ended()], finals=[final()], given=[given()]),
    ):
        whole.add(part)
    assert whole == history(given=[given()], reruns=[Rerun("z", 1)], deaths=[Death(1, 1)])
