import os
import stat

import pytest

from chervil.statedir import write_private
from chervil_broker.tokens import hashed, provide_token


def test_a_token_is_made_once_and_kept_for_the_next_start(tmp_path):
    path = tmp_path / "tokens" / "127.0.0.1:2437"
    first = provide_token([path])
    assert len(path.read_text().strip()) == 43
    assert provide_token([path]) == first == hashed(path.read_text().strip())


def test_all_addresses_share_one_token(tmp_path):
    paths = [tmp_path / "tokens" / "a", tmp_path / "tokens" / "b"]
    provide_token(paths[:1])
    provide_token(paths)
    assert paths[0].read_text() == paths[1].read_text()


def test_only_the_user_can_read_it(tmp_path):
    path = tmp_path / "tokens" / "a"
    provide_token([path])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_empty_file_is_no_token(tmp_path):
    path = tmp_path / "a"
    write_private(path, "")
    provide_token([path])
    assert path.read_text().strip()


def test_a_folder_that_others_may_write_to_keeps_no_token(tmp_path):
    """They could put a token of theirs there, and be the user `local`."""
    folder = tmp_path / "tokens"
    provide_token([folder / "a"])
    folder.chmod(0o770)
    with pytest.raises(ValueError, match=f"others may write to .*; type: chmod 700 {folder}$"):
        provide_token([folder / "a"])


def test_a_token_that_others_may_have_read_is_not_used_on(tmp_path):
    path = tmp_path / "tokens" / "a"
    provide_token([path])
    path.chmod(0o640)
    with pytest.raises(ValueError, match=f"; type: chmod 600 {path}$"):
        provide_token([path])


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "tokens").write_text("a file")
    with pytest.raises(ValueError, match=r"cannot keep the token in .*; name a folder with XDG_STATE_HOME"):
        provide_token([tmp_path / "tokens" / "a"])


def test_the_users_umask_makes_no_difference(tmp_path):
    before = os.umask(0)
    try:
        provide_token([tmp_path / "state" / "chervil" / "tokens" / "a"])
    finally:
        os.umask(before)
    for path in (tmp_path / "state").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
