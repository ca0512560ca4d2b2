import sys
import textwrap

import pytest

from chervil.exceptions import AppNotFound
from chervil.loading import find_app

APP = "from chervil import Chervil\napp = Chervil('found')\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(path, text):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("spec", ["lt_one", "lt_one:app", "lt_one.py", "./lt_one.py:app"])
def test_an_app_is_found_by_its_module(write, tmp_path, spec):
    write("lt_one.py", APP)
    assert find_app(spec, tmp_path).main == "found"
    assert sys.path[0] == str(tmp_path)


@pytest.mark.parametrize("name", ["celery", "anything"])
def test_other_attributes_will_do(write, tmp_path, name):
    write("lt_two.py", APP.replace("app =", f"{name} ="))
    assert find_app("lt_two", tmp_path).main == "found"


def test_a_nested_attribute(write, tmp_path):
    write("lt_nest.py", "class shop:\n    from chervil import Chervil\n    app = Chervil('nested')\n")
    assert find_app("lt_nest:shop.app", tmp_path).main == "nested"


@pytest.mark.parametrize("submodule", ["celery", "app", "tasks"])
def test_submodules_of_a_package_are_tried(write, tmp_path, submodule):
    write("lt_pkg/__init__.py", "")
    write(f"lt_pkg/{submodule}.py", APP)
    assert find_app("lt_pkg", tmp_path).main == "found"


def test_several_apps_must_be_told_apart(write, tmp_path):
    write("lt_many.py", "from chervil import Chervil\none = Chervil('1')\ntwo = Chervil('2')\n")
    with pytest.raises(AppNotFound, match="-A lt_many:one or -A lt_many:two"):
        find_app("lt_many", tmp_path)
    with pytest.raises(AppNotFound, match="there is lt_many:one, lt_many:two"):
        find_app("lt_many:three", tmp_path)
    assert find_app("lt_many:two", tmp_path).main == "2"


def test_no_app_says_how_to_make_one(write, tmp_path):
    write("lt_none/__init__.py", "")
    write("lt_none/tasks.py", "")
    with pytest.raises(AppNotFound, match=r"lt_none, lt_none.tasks; make one"):
        find_app("lt_none", tmp_path)
    with pytest.raises(AppNotFound, match="there is none"):
        find_app("lt_none:app", tmp_path)


@pytest.mark.parametrize("spec", ["lt_missing", "lt_missing.sub"])
def test_no_such_module(tmp_path, write, spec):
    with pytest.raises(AppNotFound, match="no module 'lt_missing'") as caught:
        find_app(spec, tmp_path)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("spec", ["", "a-b", ":app", "a..b"])
def test_what_is_no_modules_name(tmp_path, write, spec):
    with pytest.raises(AppNotFound, match="no module's name"):
        find_app(spec, tmp_path)


@pytest.mark.parametrize(
    ("text", "error"),
    [("import lt_not_there", ModuleNotFoundError), ("1/0", ZeroDivisionError), ("x = (", SyntaxError)],
)
def test_a_module_that_fails_keeps_its_own_error(write, tmp_path, text, error):
    write("lt_bad.py", text)
    with pytest.raises(AppNotFound, match="lt_bad cannot be imported") as caught:
        find_app("lt_bad", tmp_path)
    assert type(caught.value.__cause__) is error
