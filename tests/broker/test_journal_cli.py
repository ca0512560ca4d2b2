import json

import click
import pytest
from click.testing import CliRunner

from chervil_broker import journal_cli
from chervil_broker.journal.files import OSFiles
from chervil_broker.journal.lock import FolderLock
from tests.broker.journal.small_journals import read, three_segments


@pytest.fixture
def journal():
    return three_segments("mark")


@pytest.fixture
def folder(tmp_path, journal):
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    store(journal, path)
    return path


def store(journal, path):
    for name in journal.names:
        (path / name).write_bytes(journal.files.get(name))


@pytest.fixture
def run():
    group = click.Group(
        "broker",
        commands=[
            journal_cli.check,
            journal_cli.repair,
            journal_cli.dump,
            journal_cli.backup,
            journal_cli.restore,
        ],
    )

    def run(*words, code=0, say=None):
        result = CliRunner().invoke(group, [str(word) for word in words], input=say)
        assert result.exit_code == code, result.output
        return result.output

    return run


@pytest.fixture
def damaged(journal, folder):
    """The frame that is damaged."""
    broken = next(frame for frame in journal.frames[5:] if frame.records)
    journal.flip(broken.segment, broken.offset + 60, 0)
    store(journal, folder)
    return broken


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_check_says_what_there_is(run, folder, journal):
    before = contents(folder)
    text = run("check", folder)
    assert f"the journal in {folder} is as it should be" in text
    assert f"{len(journal.records)} records in 3 segments" in text
    assert "not ended in order" in text
    assert contents(folder) == before


def test_check_tells_a_clean_end(run, folder):
    for name in contents(folder):
        (folder / name).unlink()
    store(three_segments("close"), folder)
    assert "not ended" not in run("check", folder)


def test_check_tells_of_a_torn_end_and_leaves_it(run, folder, journal):
    journal.flip(journal.segment, 8191, 0)
    store(journal, folder)
    before = contents(folder)
    text = run("check", folder)
    assert f"{8192 - journal.offset} bytes at its end" in text
    assert f"{folder / 'aside'}" in text
    assert contents(folder) == before


def test_check_of_an_empty_folder_is_fine(run, tmp_path):
    assert "no segments" in run("check", tmp_path)


def test_check_of_damage_exits_1_and_names_file_offset_and_command(run, folder, damaged):
    text = run("check", folder, code=1)
    assert f"{damaged.segment}, offset {damaged.offset}:" in text
    assert f"records at risk: {len(damaged.records)}" in text
    assert f"chervil broker repair {folder}" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("verb", ["check", "repair"])
def test_folder_in_use_is_refused(run, folder, verb):
    lock = FolderLock(folder)
    try:
        assert "uses the data folder" in run(verb, folder, code=1)
    finally:
        lock.release()
    run(verb, folder)


@pytest.mark.parametrize("verb", ["check", "repair", "dump", "backup", "restore"])
def test_folder_that_is_missing_is_wrong_usage(run, tmp_path, verb):
    more = [tmp_path / "new"] if verb in ("backup", "restore") else []
    run(verb, tmp_path / "nowhere", *more, code=2)
    run(verb, code=2)


def test_repair_of_a_whole_journal_says_so(run, folder):
    before = contents(folder)
    assert "nothing to repair" in run("repair", folder)
    assert {**contents(folder), "lock": b""} == {**before, "lock": b""}


def test_repair_explains_and_does_nothing_unless_it_is_told_yes(run, folder, damaged):
    before = contents(folder)
    text = run("repair", folder, code=1, say="n\n")
    assert f"{damaged.segment}: offset {damaged.offset}: the checksum" in text
    assert f"in all, records lost: {len(damaged.records)}" in text
    assert "runs again" in text
    assert "Repair it? [y/N]" in text
    assert {**contents(folder), "lock": b""} == {**before, "lock": b""}
    assert not (folder / "aside").exists()


@pytest.mark.parametrize("say", [None, "y\n"])
def test_repaired_journal_opens_and_the_original_is_kept(run, folder, journal, damaged, say):
    original = (folder / damaged.segment).read_bytes()
    text = run("repair", folder, say=say) if say else run("repair", folder, "--yes")
    assert "repaired" in text
    assert (folder / "aside" / damaged.segment).read_bytes() == original
    assert (folder / "aside").stat().st_mode & 0o777 == 0o700
    assert (folder / "restored").exists()
    records = read(OSFiles(folder))[0]
    assert len(records) == len(journal.records)
    run("check", folder)
    assert "nothing to repair" in run("repair", folder)


def test_repair_tells_of_files_that_nobody_can_read(run, folder, journal):
    (folder / journal.names[1]).write_bytes(bytes(6144))
    text = run("repair", folder, "--yes")
    assert f"{journal.names[1]}: it does not begin as a segment does" in text
    assert "records lost: not known how many" in text
    assert "  missing: a segment is missing before" in text


def test_repair_of_what_is_newer_is_refused(run, folder, journal):
    journal.frame(b"\x91\x63")
    store(journal, folder)
    text = run("repair", folder, "--yes", code=1)
    assert "kind 99" in text
    assert "chervil broker repair" not in text


def test_dump_writes_json_lines(run, folder, journal):
    lines = [json.loads(line) for line in run("dump", folder).splitlines()]
    assert [line["record"] for line in lines] == list(range(1, len(journal.records) + 1))
    assert "--bodies" in run("dump", "--help")
    assert len(run("dump", folder, "--bodies").splitlines()) == len(lines)


def test_dump_of_damage_ends_there_with_1(run, folder, damaged):
    *lines, last = run("dump", folder, code=1).splitlines()
    assert len(lines) == damaged.first - 1
    assert "is damaged" in last


def test_backup_and_restore(run, folder, tmp_path, journal):
    lock = FolderLock(folder)
    try:
        text = run("backup", folder, tmp_path / "copy")
    finally:
        lock.release()
    assert f"{tmp_path / 'copy'} is a backup of {folder}: {len(journal.records)} records" in text
    text = run("restore", tmp_path / "copy", tmp_path / "new")
    assert f"chervil broker --data {tmp_path / 'new'}" in text
    assert (tmp_path / "new" / "restored").exists()
    run("check", tmp_path / "new")


def test_backup_that_is_refused_exits_1(run, folder, tmp_path, damaged):
    assert "not empty" in run("backup", folder, folder, code=1)
    assert "is damaged" in run("backup", folder, tmp_path / "copy", code=1)
    assert "is no backup" in run("restore", folder, tmp_path / "copy", code=1)
    assert not (tmp_path / "copy").exists()


def test_error_of_the_system_is_a_message(run, folder, tmp_path, journal):
    (folder / journal.names[0]).unlink()
    (folder / journal.names[0]).symlink_to(tmp_path / "nowhere")
    text = run("dump", folder, code=1)
    assert text == f"Error: {folder / journal.names[0]}: No such file or directory\n"
