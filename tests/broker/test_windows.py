"""Windows close together, open a part at a time, and are lifted when there is room enough."""

from chervil_broker.windows import NO_LIMIT, SHARE_MIN, Window, Windows

LIMIT = 100 << 20


def crowd(size: int) -> dict[int, Window]:
    return {number: Window() for number in range(1, size + 1)}


def told(changed: list[tuple[int, Window]]) -> dict[int, int]:
    return {number: window.limit for number, window in changed}


def publish(windows: Windows, everyone: dict[int, Window], number: int, size: int) -> None:
    windows.count(number, everyone[number], size)


def test_while_there_is_room_nobody_is_told_anything():
    windows, everyone = Windows(LIMIT), crowd(3)
    publish(windows, everyone, 1, 5000)
    assert windows.idle
    assert windows.follow(LIMIT, everyone, closed=False) == []
    assert not windows.welcome(9, Window())


def test_windows_close_at_what_was_published():
    windows, everyone = Windows(LIMIT), crowd(3)
    publish(windows, everyone, 2, 5000)
    assert told(windows.follow(0, everyone, closed=True)) == {1: 0, 2: 5000, 3: 0}
    assert windows.follow(0, everyone, closed=True) == []


def test_a_newcomer_finds_the_window_closed():
    windows = Windows(LIMIT)
    windows.follow(0, {}, closed=True)
    window = Window()
    assert windows.welcome(7, window)
    assert window.limit == 0
    assert told(windows.follow(1 << 20, {7: window}, closed=False)) == {7: 1 << 20}


def test_windows_open_by_fair_shares():
    windows, everyone = Windows(LIMIT), crowd(4)
    publish(windows, everyone, 1, 1000)
    windows.follow(0, everyone, closed=True)
    share = (10 << 20) // 4
    assert told(windows.follow(10 << 20, everyone, closed=False)) == {
        1: 1000 + share,
        2: share,
        3: share,
        4: share,
    }
    assert windows.follow(10 << 20, everyone, closed=False) == []


def test_a_share_is_never_less_than_a_few_tasks():
    windows, everyone = Windows(LIMIT), crowd(2)
    windows.follow(0, everyone, closed=True)
    assert told(windows.follow(10, everyone, closed=False)) == {1: SHARE_MIN, 2: SHARE_MIN}


def test_who_has_used_half_of_its_share_gets_another():
    windows, everyone = Windows(LIMIT), crowd(2)
    windows.follow(0, everyone, closed=True)
    windows.follow(10, everyone, closed=False)
    publish(windows, everyone, 1, SHARE_MIN // 2 - 1)
    assert windows.follow(10, everyone, closed=False) == []
    publish(windows, everyone, 1, 1)
    assert told(windows.follow(10, everyone, closed=False)) == {1: SHARE_MIN // 2 + SHARE_MIN}
    assert windows.follow(10, everyone, closed=False) == []


def test_opening_windows_close_again_with_what_was_not_used():
    windows, everyone = Windows(LIMIT), crowd(2)
    windows.follow(0, everyone, closed=True)
    windows.follow(10, everyone, closed=False)
    publish(windows, everyone, 1, SHARE_MIN)
    assert told(windows.follow(0, everyone, closed=True)) == {2: 0}
    assert everyone[1].limit == SHARE_MIN


def test_with_half_of_the_memory_free_windows_are_lifted():
    windows, everyone = Windows(LIMIT), crowd(2)
    windows.follow(0, everyone, closed=True)
    windows.follow(10, everyone, closed=False)
    assert told(windows.follow(LIMIT * 3 // 10, everyone, closed=False)) == {1: NO_LIMIT, 2: NO_LIMIT}
    assert windows.idle
    publish(windows, everyone, 1, 1 << 30)
    assert windows.follow(0, everyone, closed=False) == []


def test_who_publishes_over_its_window_is_closed_where_it_stands():
    windows, everyone = Windows(LIMIT), crowd(1)
    windows.follow(0, everyone, closed=True)
    publish(windows, everyone, 1, 5000)
    assert not windows.refused(1, everyone[1])
    assert told(windows.follow(10, everyone, closed=False)) == {1: 5000 + SHARE_MIN}


def test_who_was_refused_alone_is_told_to_wait_and_then_to_try_again():
    windows, everyone = Windows(LIMIT), crowd(2)
    publish(windows, everyone, 1, 5000)
    assert windows.refused(1, everyone[1])
    assert everyone[1].limit == 5000
    assert windows.follow(LIMIT, everyone, closed=False) == []
    assert told(windows.reopen()) == {1: NO_LIMIT}
    assert windows.reopen() == []
    assert windows.idle


def test_who_was_refused_while_windows_open_gets_a_share_later():
    windows, everyone = Windows(LIMIT), crowd(1)
    windows.follow(0, everyone, closed=True)
    windows.follow(10, everyone, closed=False)
    publish(windows, everyone, 1, SHARE_MIN // 2)
    assert windows.refused(1, everyone[1])
    assert windows.follow(10, everyone, closed=False) == []
    assert told(windows.reopen()) == {1: SHARE_MIN // 2 + SHARE_MIN}


def test_who_was_refused_before_all_were_closed_waits_with_them():
    windows, everyone = Windows(LIMIT), crowd(2)
    windows.refused(1, everyone[1])
    windows.follow(0, everyone, closed=True)
    assert windows.reopen() == []


def test_who_left_is_told_nothing():
    windows, everyone = Windows(LIMIT), crowd(2)
    windows.follow(0, everyone, closed=True)
    windows.leave(1)
    windows.leave(77)
    assert list(told(windows.follow(10, everyone, closed=False))) == [2]
    windows.leave(2)
    assert windows.follow(10, {}, closed=False) == []
