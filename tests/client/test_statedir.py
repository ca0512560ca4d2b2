import os
import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest

from chervil import listeners, statedir
from chervil.address import BrokerURL
from chervil.statedir import (
    NotPrivate,
    Token,
    check_folder,
    data_dir,
    find_token,
    make_folder,
    read_token,
    state_dir,
    token_path,
    unreadable_token,
    why_withheld,
    write_private,
)

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
    write_private(named, "named")
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
    empty.touch(mode=0o600)
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", str(empty))
    with pytest.raises(OSError, match="the file is empty"):
        read_token(URL)


# Others on this machine


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o666])
def test_a_named_token_file_that_others_may_read_or_write_is_refused(tmp_path, monkeypatch, mode):
    named = tmp_path / "my token"
    write_private(named, "secret")
    named.chmod(mode)
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", str(named))
    with pytest.raises(NotPrivate) as caught:
        read_token(URL)
    assert str(caught.value) == (
        f"others may read or change {named}, which holds a token; type: chmod 600 '{named}'"
    )


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_a_named_token_file_may_be_read_by_its_group(tmp_path, monkeypatch, mode):
    """That is how systemd and containers hand a secret to a service."""
    named = tmp_path / "token"
    write_private(named, "secret")
    named.chmod(mode)
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", str(named))
    assert read_token(URL) == "secret"


def test_a_token_file_of_another_owner_stays_readable_for_us_by_what_is_to_be_typed(tmp_path, monkeypatch):
    named = tmp_path / "token"
    write_private(named, "secret")
    named.chmod(0o644)
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", str(named))
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    with pytest.raises(NotPrivate, match="type: chmod 640"):
        read_token(URL)


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_filed_token_that_anybody_else_may_read_is_refused(mode):
    write_private(token_path(URL), "secret")
    token_path(URL).chmod(mode)
    with pytest.raises(NotPrivate, match="type: chmod 600"):
        read_token(URL)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path, mode):
    folder = tmp_path / "data"
    write_private(folder / "kept", "before")
    folder.chmod(mode)
    with pytest.raises(NotPrivate, match=f"others may write to .*; type: chmod 700 {folder}$"):
        write_private(folder / "kept", "after")
    assert (folder / "kept").read_text() == "before\n"


def owned_by(monkeypatch, uid, folder):
    """Has a folder look as if it belonged to somebody else."""
    real = Path.stat

    def stat(path, **more):
        found = real(path, **more)
        return SimpleNamespace(st_uid=uid, st_mode=found.st_mode) if path == folder else found

    monkeypatch.setattr(Path, "stat", stat)


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    make_folder(folder)
    owned_by(monkeypatch, 4_000_000_000, folder)
    with pytest.raises(NotPrivate, match=r"belongs to user number 4000000000, .*; run this as user number"):
        check_folder(folder)


def test_an_owner_with_a_name_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    make_folder(folder)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    owned_by(monkeypatch, 1, folder)
    with pytest.raises(NotPrivate, match=f"belongs to user {pwd.getpwuid(1).pw_name}, "):
        check_folder(folder)


def test_a_folder_of_root_is_as_good_as_our_own(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    make_folder(folder)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    owned_by(monkeypatch, 0, folder)
    check_folder(folder)


def test_the_data_folder_must_be_private(tmp_path, monkeypatch):
    monkeypatch.setenv("CHERVIL_DATA", str(tmp_path / "data"))
    assert data_dir() == tmp_path / "data"
    make_folder(data_dir())
    assert data_dir().stat().st_mode & 0o777 == 0o700
    data_dir().chmod(0o775)
    # A ValueError is what the command line tells as a mistake of whoever started it.
    with pytest.raises(ValueError, match="type: chmod 700"):
        data_dir()


def test_the_data_folder_is_systemds_or_in_the_state_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("CHERVIL_DATA", raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/a:{tmp_path}/b")
    assert data_dir() == tmp_path / "a"
    monkeypatch.delenv("STATE_DIRECTORY")
    assert data_dir() == state_dir() / "data"


def test_a_loss_of_power_leaves_the_old_line_or_the_new(tmp_path, monkeypatch):
    """The content is on the disk before the name, and the name before anybody is told."""
    done = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor):
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append("folder" if name.is_dir() else f"file of {name.stat().st_size} bytes")
        real_sync(descriptor)

    def replace(path, target):
        done.append("name")
        return real_replace(path, target)

    monkeypatch.setattr(statedir.os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    write_private(tmp_path / "token", "12345")
    assert done == ["file of 6 bytes", "name", "folder"]


# Where a token goes


def test_a_filed_token_goes_to_the_address_that_it_is_filed_under_and_nowhere_else(tmp_path):
    """A foreign folder may name any broker, in its pyproject.toml say."""
    write_private(token_path(URL), "secret")
    for elsewhere in ("chervil://127.0.0.1:8", "chervil://example.org:7", "chervil://127.0.0.2:7"):
        assert read_token(BrokerURL.parse(elsewhere)) is None
    for here in ("chervil://127.0.0.1:7", "chervils://localhost:7/shop", "chervil://[::1]:7"):
        assert read_token(BrokerURL.parse(here)) == "secret"


def test_a_filed_token_that_cannot_be_read_is_no_error_until_a_broker_asks_for_it():
    path = token_path(URL)
    assert unreadable_token(URL) is None
    path.mkdir(parents=True)
    assert find_token(URL) is None
    assert unreadable_token(URL) == f"{path}, where one may be, cannot be read: Is a directory"
    path.rmdir()
    write_private(path, "secret")
    assert unreadable_token(URL) is None


def test_no_token_is_for_a_unix_socket(tmp_path, monkeypatch):
    monkeypatch.setenv("CHERVIL_TOKEN", "for another")
    url = BrokerURL.parse(f"chervil+unix://{tmp_path}/b.sock")
    write_private(token_path(url), "secret")
    assert read_token(url) is None


def test_only_a_token_that_was_found_in_the_state_folder_minds_who_listens(monkeypatch):
    peer = ("127.0.0.1", 7)
    asked = []
    monkeypatch.setattr(listeners, "stranger_at", lambda *about: asked.append(about) or "user bob")
    given = find_token(BrokerURL.parse("chervil://own@127.0.0.1:7"))
    assert given == Token("own")
    assert why_withheld(URL, peer, given) is None
    assert why_withheld(URL, peer, None) is None
    write_private(token_path(URL), "secret")
    found = find_token(URL)
    assert found == Token("secret", os.geteuid())
    assert "secret" not in repr(found)
    assert why_withheld(BrokerURL.parse("chervils://localhost:7"), peer, found) is None
    assert asked == []
    told = why_withheld(URL, peer, found)
    assert told.startswith(
        f"user bob listens there, and not the user whose broker has left {token_path(URL)};"
    )
    assert "CHERVIL_TOKEN_FILE" in told
    assert asked == [(peer, os.geteuid())]
    monkeypatch.setattr(listeners, "stranger_at", lambda *about: None)
    assert why_withheld(URL, peer, found) is None
