from chervil_worker.reconnect import FIRST_SECONDS, GRACE_MAX_SECONDS, MAX_SECONDS, Reconnect


def test_waits_double_up_to_a_limit_and_are_spread():
    attempts = Reconnect()
    attempts.failed(0.0)
    delays = [attempts.failed(60.0)[0] for _ in range(40)]
    for number, delay in enumerate(delays, 1):
        full = min(MAX_SECONDS, FIRST_SECONDS * 2**number)
        assert full / 2 <= delay <= full
    assert len(set(delays)) > 30


def test_while_the_broker_keeps_the_session_no_wait_is_long():
    attempts = Reconnect()
    now, waits = 100.0, []
    while now < 104.9:
        waits.append(attempts.failed(now)[0])
        now += waits[-1]
    assert max(waits) <= GRACE_MAX_SECONDS
    assert now < 105.5
    assert max(attempts.failed(106.0)[0] for _ in range(20)) > GRACE_MAX_SECONDS


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
