import os

import pytest

from tests.faults.history import Publication, Told
from tests.faults.logbook import Logbook, read_folder


def test_records_come_back_in_the_order_of_their_times(tmp_path):
    book = Logbook(tmp_path, "p1")
    first = book.publish([("a", "twice", [1])])
    book.told(first, [Told.CONFIRMED])
    book.start("a", "twice", [1], redelivered=True, attempts=2, retries=3)
    book.end("a", 3)
    book.given("a", "SUCCESS", {"x": 1})
    book.rerun("a")
    history = read_folder(tmp_path)
    (publication,) = history.publications
    (start,) = history.starts
    (end,) = history.ends
    (given,) = history.given
    (rerun,) = history.reruns
    told_at = publication.told_at
    assert publication == Publication(
        "a", "twice", [1], publication.at, Told.CONFIRMED, told_at, f"p1 (pid {os.getpid()})"
    )
    assert start[:7] == ("a", "twice", [1], True, 2, 3, os.getpid())
    assert (end.id, end.retries, end.pid, end.how) == ("a", 3, os.getpid(), "returned")
    assert given[:3] == ("a", "SUCCESS", {"x": 1})
    times = [publication.at, told_at, start.at, end.at, given.at, rerun.at]
    assert times == sorted(times)


def test_publisher_that_was_told_nothing_leaves_an_unconfirmed_publication(tmp_path):
    Logbook(tmp_path, "p1").publish([("a", "twice", [1])])
    (publication,) = read_folder(tmp_path).publications
    assert publication.told is Told.UNCONFIRMED
    assert publication.told_at is None


def test_each_publication_of_a_batch_has_what_was_said_of_it(tmp_path):
    book = Logbook(tmp_path, "p1")
    book.publish([("a", "twice", [1])])
    first = book.publish([(id_, "twice", [2]) for id_ in "bcdef"])
    told = [Told.CONFIRMED, Told.CONFIRMED, Told.REFUSED, Told.UNCONFIRMED, Told.CONFIRMED]
    book.told(first, told)
    assert [(each.id, each.told) for each in read_folder(tmp_path).publications] == [
        ("a", Told.UNCONFIRMED),
        *zip("bcdef", told, strict=True),
    ]


def test_line_cut_short_by_a_kill_did_not_happen(tmp_path):
    Logbook(tmp_path, "w").rerun("a")
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b'[12, "rer')
    assert len(read_folder(tmp_path).reruns) == 1


def test_record_of_an_unknown_kind_is_an_error(tmp_path):
    (tmp_path / "w.1.2.log").write_text('[1, "sing"]\n')
    with pytest.raises(ValueError, match="sing"):
        read_folder(tmp_path)


def test_forked_process_has_a_file_of_its_own(tmp_path):
    book = Logbook(tmp_path, "w")
    book.rerun("parent")
    pid = os.fork()
    if not pid:
        book.rerun("child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    book.rerun("parent again")
    assert len(list(tmp_path.iterdir())) == 2
    assert {rerun.id for rerun in read_folder(tmp_path).reruns} == {"parent", "child", "parent again"}
