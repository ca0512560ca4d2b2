from pathlib import Path

import pytest

from chervil.address import BrokerURL
from chervil.statedir import read_token, state_dir, token_path, write_private

URL = BrokerURL.parse("chervil://localhost:7")


def test_the_state_directory_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_dir() == tmp_path / "chervil"
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert state_dir() == Path.home() / ".local" / "state" / "chervil"


def test_a_token_is_private_and_comes_back():
    path = token_path(URL)
    write_private(path, "first")
    write_private(path, "secret")
    assert read_token(URL) == "secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_addresses_have_files_of_their_own():
    unix = token_path(BrokerURL.parse("chervil+unix:///a/../b"))
    assert unix.parent == token_path(URL).parent
    assert unix != token_path(URL)


def test_the_url_wins_then_the_environment_then_the_file(tmp_path, monkeypatch):
    assert read_token(URL) is None
    write_private(token_path(URL), "filed")
    assert read_token(URL) == "filed"
    named = tmp_path / "token"
    named.write_text("named\n")
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", str(named))
    assert read_token(URL) == "named"
    monkeypatch.setenv("CHERVIL_TOKEN", " given ")
    assert read_token(URL) == "given"
    assert read_token(BrokerURL.parse("chervil://own@localhost:7")) == "own"


def test_a_named_token_file_must_be_there(monkeypatch, tmp_path):
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        read_token(URL)


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    (tmp_path / "token").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "token", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["token"]


def test_a_token_file_that_was_named_and_is_empty_is_an_error(monkeypatch, tmp_path):
    empty = tmp_path / "token"
    empty.touch()
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", str(empty))
    with pytest.raises(OSError, match="the file is empty"):
        read_token(URL)
