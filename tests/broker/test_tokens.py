import stat

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
    path.write_text("\n")
    provide_token([path])
    assert path.read_text().strip()
