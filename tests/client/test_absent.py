from importlib.util import find_spec

import pytest

import chervil
from chervil import AsyncResult, Chervil, absent, exceptions
from chervil.conf import Settings
from chervil.exceptions import ImproperlyConfigured
from chervil.options import CALL_OPTIONS, TASK_OPTIONS
from chervil.task import Task

SAID = "is not in this release of Chervil"


@pytest.fixture
def add(app):
    @app.task
    def add(x: int, y: int = 1) -> int:
        return x + y

    return add


def test_no_table_names_what_is_there(app, add):
    assert not absent.CALL_OPTIONS & CALL_OPTIONS
    assert not absent.TASK_OPTIONS & TASK_OPTIONS
    assert not absent.SETTINGS & set(Settings())
    assert not absent.PACKAGE & set(vars(chervil))
    assert not [name for name in absent.PACKAGE if find_spec(f"chervil.{name}")]
    assert not absent.EXCEPTIONS & set(vars(exceptions))
    for thing, names in (
        (app, absent.APP_ATTRIBUTES),
        (add, absent.TASK_ATTRIBUTES),
        (app.control, absent.CONTROL_ATTRIBUTES),
        (AsyncResult("a"), absent.RESULT_ATTRIBUTES),
    ):
        assert [name for name in names if hasattr(thing, name)] == []


@pytest.mark.parametrize(
    ("module", "name"),
    [("chervil", name) for name in sorted(absent.PACKAGE - {"Celery"})]
    + [("chervil.exceptions", name) for name in sorted(absent.EXCEPTIONS)],
)
def test_imports_of_celerys_names_are_told_what_to_do_meanwhile(module, name):
    with pytest.raises(ImportError, match=rf"^{name} is Celery's, and {SAID}; docs/from-celery\.md says"):
        exec(f"from {module} import {name}")


def test_who_imports_celerys_app_is_told_its_name_here():
    with pytest.raises(ImportError, match=r"from chervil import Chervil$"):
        exec("from chervil import Celery")


@pytest.mark.parametrize("module", [chervil, exceptions])
def test_other_names_of_modules_are_missing_in_pythons_words(module):
    words = f"^module '{module.__name__}' has no attribute 'nothing'$"
    with pytest.raises(AttributeError, match=words) as caught:
        _ = module.nothing
    assert (caught.value.name, hasattr(module, "nothing")) == ("nothing", False)
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec(f"from {module.__name__} import nothing")


@pytest.mark.parametrize("option", ["shadow", "link", "link_error"])
def test_options_of_celerys_calls_are_no_typos(add, app, option):
    for call in (
        lambda **options: add.apply_async([1], **options),
        lambda **options: add.delay_many([(1,)], **options),
        lambda **options: app.send_task("t", **options),
    ):
        with pytest.raises(TypeError, match=f"the option '{option}' {SAID}"):
            call(**{option: 1})


@pytest.mark.parametrize("option", ["rate_limit", "autoretry_for", "base"])
def test_options_of_celerys_tasks_are_no_typos(app, option):
    with pytest.raises(TypeError, match=rf"@app\.task: the option '{option}' {SAID}"):
        app.task(**{option: 1})


def test_attributes_that_celery_has_are_no_typos(app, add):
    for thing, name in (
        (add, "s"), (add, "si"), (add, "signature"), (add, "map"), (add, "starmap"), (add, "chunks"),
        (app, "events"), (app.control, "ping"), (AsyncResult("a"), "then"),
    ):  # fmt: skip
        with pytest.raises(AttributeError, match=rf"{type(thing).__name__}\.{name} {SAID}") as caught:
            getattr(thing, name)
        assert (caught.value.name, caught.value.obj) == (name, thing)


@pytest.mark.parametrize("thing", [Chervil("x"), Task(None, print, "p", False, {}), AsyncResult("a")])
def test_other_names_are_missing_in_pythons_words(thing):
    with pytest.raises(AttributeError, match=f"^'{type(thing).__name__}' object has no attribute 'nothing'$"):
        _ = thing.nothing


def test_celerys_settings_are_refused_and_cannot_be_read():
    with pytest.raises(ImproperlyConfigured, match=f"the setting 'beat_schedule' {SAID}"):
        Settings(beat_schedule={})
    with pytest.raises(AttributeError, match=f"the setting 'result_backend' {SAID}"):
        _ = Settings().result_backend
    assert not hasattr(Settings(), "worker_concurrency")
