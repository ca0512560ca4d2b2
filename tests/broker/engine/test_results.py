from chervil_broker.engine.results import SWEEP_MAX, Results
from chervil_broker.engine.task import NO_HANDLE, SUCCESS, TASK_OVERHEAD, Task

SECOND = 1_000_000_000


def finished(results, handle, size=100, until=10 * SECOND):
    task = Task(f"t{handle}", "add", "q", 0, None, NO_HANDLE, 0, 1, 0, ("web", 0))
    task.stage, task.ending = SUCCESS, None
    if size:
        task.result, task.result_size = handle, size
    results.keep(task, until)
    return task


def test_keeps_within_the_limit_and_counts():
    results = Results(10_000)
    finished(results, 1)
    finished(results, 2, size=0)
    assert results.bytes == 2 * TASK_OVERHEAD + 100
    assert results.trim([]) == ([], [])


def test_read_results_go_first_then_the_oldest():
    results = Results(4 * TASK_OVERHEAD * 2 + 500)
    tasks = [finished(results, handle, size=1000) for handle in range(4)]
    results.mark_read(tasks[2])
    results.mark_read(tasks[2])
    results.limit = results.bytes - 1
    freed: list[int] = []
    assert results.trim(freed) == ([tasks[2]], [])
    results.limit = results.bytes - 1
    assert results.trim(freed) == ([tasks[0]], [])
    assert freed == [2, 0]
    results.mark_read(tasks[0])
    assert not tasks[0].read


def test_records_that_fill_half_of_the_budget_are_dropped_oldest_first():
    results = Results(TASK_OVERHEAD * 8)
    bare = [finished(results, handle, size=0, until=handle * SECOND) for handle in range(8)]
    assert results.trim([]) == ([], [])
    newest = finished(results, 99, size=3 * TASK_OVERHEAD, until=20 * SECOND)
    evicted, dropped = results.trim([])
    assert evicted == []
    assert dropped == bare[:4]
    assert newest.result == 99


def test_dropping_a_record_frees_its_result_too():
    results = Results(TASK_OVERHEAD)
    freed: list[int] = []
    tasks = [finished(results, handle, size=10) for handle in (1, 2)]
    results.mark_read(tasks[0])
    assert results.trim(freed) == ([], tasks)
    assert freed == [1, 2]
    assert (results.bytes, results._bare) == (0, 0)


def test_results_that_were_read_meanwhile_are_passed_over():
    results = Results(10**6)
    tasks = [finished(results, handle, size=10**5) for handle in range(4)]
    results.mark_read(tasks[0])
    results.limit = 200_000
    assert results.trim([]) == ([tasks[0], tasks[1], tasks[2]], [])


def test_sweeps_when_the_time_has_come():
    results = Results(10**9)
    early = finished(results, 1, until=SECOND)
    late = finished(results, 2, until=5 * SECOND)
    freed: list[int] = []
    assert results.next() == 2 * SECOND
    assert results.sweep(2 * SECOND - 1, freed) == []
    assert results.sweep(2 * SECOND, freed) == [early]
    assert results.sweep(6 * SECOND, freed) == [late]
    assert freed == [1, 2]
    assert results.next() is None
    assert (results.bytes, results._bare) == (0, 0)


def test_sweeps_a_limited_number_at_a_time():
    results = Results(10**9)
    for handle in range(SWEEP_MAX + 5):
        finished(results, handle, size=0)
    assert len(results.sweep(100 * SECOND, [])) == SWEEP_MAX
    assert len(results.sweep(100 * SECOND, [])) == 5


def test_tombstones_never_exceed_half_of_many():
    results = Results(10**9)
    tasks = [finished(results, handle) for handle in range(1000)]
    for task in tasks[100:]:
        results.mark_read(task)
    assert len(results._unread) <= 200
    results.limit = 0
    evicted, dropped = results.trim([])
    assert len(evicted) + len(dropped) == 1000


def test_tasks_that_are_kept_for_different_times_share_the_buckets():
    results = Results(10**9)
    tasks = [finished(results, handle, until=until * SECOND) for handle, until in enumerate((1, 9, 1, 9))]
    assert len(results._buckets) == 2
    assert results.sweep(2 * SECOND, []) == [tasks[0], tasks[2]]


def test_removed_task_is_passed_over_and_its_bucket_goes():
    results = Results(10**9)
    first, second = finished(results, 1), finished(results, 2, until=20 * SECOND)
    results.remove(first)
    assert (results.bytes, first.result) == (second.weight(), 1)
    assert results.next() == 21 * SECOND
    results.limit = 0
    assert results.trim([]) == ([], [second])
