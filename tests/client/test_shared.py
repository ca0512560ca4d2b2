from chervil import Chervil, shared_task
from chervil.task import AsyncTask


def test_a_shared_task_belongs_to_every_app():
    first = Chervil("first")
    first.finalize()

    @shared_task(queue="q")
    def run(): ...

    second = Chervil("second")
    assert first.tasks[run.name].app is first
    assert second.tasks[run.name].app is second
    assert second.tasks[run.name].queue == "q"
    assert run.app is second
    first.set_current()
    assert run.app is first
    assert run() is None


def test_an_apps_own_task_wins_over_a_shared_one():
    @shared_task(name="t")
    def shared(): ...

    app = Chervil("x")

    @app.task(name="t")
    def own(): ...

    assert app.tasks["t"] is own


def test_a_bound_shared_task():
    @shared_task(bind=True)
    def run(self):
        return self.app

    app = Chervil("x")
    assert run() is app
    assert app.tasks[run.name]() is app


def test_a_shared_task_made_later_joins_the_apps_that_are_final():
    first, second = Chervil("first"), Chervil("second")
    first.finalize()

    @shared_task
    def run(): ...

    assert run.name in first._tasks
    assert run.name not in second._tasks
    assert second.tasks[run.name].app is second


def test_a_shared_coroutine_function_is_an_async_task_in_every_app():
    @shared_task
    async def run(): ...

    assert type(run) is type(Chervil("x").tasks[run.name]) is AsyncTask


def test_a_shared_task_is_published_by_the_app_that_is_current(app, broker):
    @shared_task(name="library.clean", priority=4)
    def clean(days): ...

    clean.delay(3)
    (row,) = broker.rows.values()
    assert (row[1], row[3]) == ("library.clean", 4)


def test_options_changed_in_one_app_stay_there():
    @shared_task(queue="q")
    def run(): ...

    first, second = Chervil("first"), Chervil("second")
    first.tasks[run.name].queue = "mine"
    assert (second.tasks[run.name].queue, run.queue) == ("q", "q")
