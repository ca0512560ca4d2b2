import pytest

from chervil import Chervil, shared_task


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


def test_shared_tasks_refuse_unknown_options():
    with pytest.raises(TypeError, match="@shared_task has no option"):
        shared_task(nonsense=1)
