import pydoc
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

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


@pytest.mark.parametrize("name", sorted(absent.PACKAGE - {"Celery"}))
def test_imports_of_celerys_names_are_told_what_to_do_meanwhile(name):
    with pytest.raises(ImportError, match=rf"^{name} is Celery's, and {SAID}; docs/from-celery\.md says"):
        exec(f"from chervil import {name}")


@pytest.mark.parametrize(
    ("module", "name"), [(chervil, "group"), (chervil, "signals"), (exceptions, "Ignore")], ids=str
)
def test_who_looks_for_a_name_of_celerys_finds_none_and_who_uses_it_is_told(module, name):
    assert not hasattr(module, name)
    assert getattr(module, name, None) is None
    assert pydoc.locate(f"{module.__name__}.{name}") is None
    with mock.patch(f"{module.__name__}.{name}", 1, create=True):
        assert getattr(module, name) == 1
    with pytest.raises(AttributeError, match=f"^{name} is Celery's, and {SAID}") as caught:
        getattr(module, name)
    assert caught.value.name == name


def test_import_of_a_celery_exception_names_what_is_missing():
    with pytest.raises(ImportError, match=r"cannot import name 'Ignore' from 'chervil\.exceptions'"):
        exec("from chervil.exceptions import Ignore")


def test_words_of_an_import_do_not_depend_on_what_was_imported_before():
    """Until `importlib` is, its inner part has another name."""
    here = Path(chervil.__file__).parents[1]
    code = (
        f"import sys; sys.path[:0] = {[str(here), *sys.path]!r}\n"
        "try:\n    from chervil import group\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("group is Celery's")


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
