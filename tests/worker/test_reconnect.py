from chervil_worker.reconnect import FIRST_SECONDS, MAX_SECONDS, Reconnect


def test_waits_double_up_to_a_limit_and_are_spread():
    attempts = Reconnect()
    delays = [attempts.failed(0.0)[0] for _ in range(40)]
    for number, delay in enumerate(delays):
        full = min(MAX_SECONDS, FIRST_SECONDS * 2**number)
        assert full / 2 <= delay <= full
    assert len(set(delays)) > 30


def test_says_so_at_once_and_then_every_half_minute():
    attempts = Reconnect()
    assert [now for now in range(70) if attempts.failed(float(now))[1]] == [0, 30, 60]


def test_success_starts_over():
    attempts = Reconnect()
    for _ in range(9):
        attempts.failed(0.0)
    attempts.succeeded()
    delay, tell = attempts.failed(1.0)
    assert delay <= FIRST_SECONDS
    assert tell
