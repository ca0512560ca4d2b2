import sys
import types

import pytest

from chervil.exceptions import RemoteError
from chervil.failure import exception_from, failure_body
from chervil.protocol import FailureRecord, unpack_failure
from chervil.protocol.failure import MESSAGE_MAX, TRACEBACK_MAX

ID = "3d56f326-34df-4540-ab63-1408aa5b92e4"


class Shaped(Exception):
    """Its constructor takes not what `args` holds."""

    def __init__(self, *, code):
        super().__init__("a message", code)
        self.code = code


class Touchy(Exception):
    def __init__(self, *, code):
        self.code = code

    def __str__(self):
        return self.code


def through(exc, **more):
    return exception_from(unpack_failure(failure_body(exc, ID, "tasks.add", **more)))


@pytest.mark.parametrize("exc", [ValueError("x", 1), KeyError("k"), ZeroDivisionError(), OSError(2, "none")])
def test_an_exception_comes_back_as_itself(exc):
    back = through(exc)
    assert type(back) is type(exc)
    assert back.args == exc.args
    assert str(back) == str(exc)


def test_the_remote_traceback_is_a_note():
    back = through(ValueError("x"), traceback="Traceback: line 1")
    assert back.remote_traceback == "Traceback: line 1"
    assert "Traceback: line 1" in back.__notes__[0]
    assert "tasks.add" in back.__notes__[0]
    assert through(ValueError("x")).remote_traceback is None


def test_a_constructor_of_another_shape_is_gone_around():
    back = through(Shaped(code=7))
    assert type(back) is Shaped
    assert back.args == ("a message", 7)


def test_an_exception_that_cannot_be_shown_is_remote():
    back = through(Touchy(code="secret word"))
    assert isinstance(back, RemoteError)
    assert back.type_name.endswith("Touchy")


def test_unknown_classes_are_remote_and_nothing_is_imported():
    sys.modules.pop("antigravity", None)
    record = FailureRecord("exception", "antigravity.Up", "m", None, ID, "t", "json", b'["a"]')
    back = exception_from(record)
    assert isinstance(back, RemoteError)
    assert (back.type_name, back.message, back.remote_args) == ("antigravity.Up", "m", ("a",))
    assert "antigravity" not in sys.modules


def test_a_modules_getattr_is_not_called(monkeypatch):
    module = types.ModuleType("lazy_one")
    module.__getattr__ = lambda name: pytest.fail("called")
    monkeypatch.setitem(sys.modules, "lazy_one", module)
    assert isinstance(
        exception_from(FailureRecord("exception", "lazy_one.X", None, None, ID, "t")), RemoteError
    )


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.int", "builtins.SystemExit", "ValueError", "builtins.x.y"]
)
def test_only_subclasses_of_exception_are_rebuilt(name):
    assert isinstance(exception_from(FailureRecord("exception", name, "m", None, ID, "t")), RemoteError)


def test_a_class_that_makes_another_is_not_trusted(monkeypatch):
    class Sly(Exception):
        def __new__(cls, *args):
            return ValueError(*args)

    module = types.ModuleType("sly")
    module.Sly = Sly
    monkeypatch.setitem(sys.modules, "sly", module)
    assert isinstance(exception_from(FailureRecord("exception", "sly.Sly", "m", None, ID, "t")), RemoteError)


def test_a_script_finds_its_own_classes_under_its_files_name(monkeypatch):
    main = types.ModuleType("__main__")
    main.__file__ = "/somewhere/shop.py"
    main.Sold = type("Sold", (Exception,), {})
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert type(exception_from(FailureRecord("exception", "shop.Sold", "out", None, ID, "t"))) is main.Sold


def test_arguments_that_cannot_travel_leave_the_message():
    record = unpack_failure(failure_body(ValueError({1, 2}), ID, "t"))
    assert record.args is None
    assert str(exception_from(record)) == "{1, 2}"


def test_damaged_arguments_leave_the_message():
    record = FailureRecord("exception", "builtins.ValueError", "m", None, ID, "t", "json", b"{")
    assert exception_from(record).args == ("m",)


def test_everything_is_cut_to_its_limit():
    exc = ValueError("ü" * MESSAGE_MAX)
    record = unpack_failure(failure_body(exc, ID, "n" * 999, traceback="é" * TRACEBACK_MAX + "the end"))
    assert len(record.message.encode()) <= MESSAGE_MAX
    assert record.args is None
    assert record.traceback.endswith("the end")
    assert len(record.task_name) == 255


def test_nuls_and_surrogates_are_replaced():
    record = unpack_failure(failure_body(ValueError("a\0b\ud800"), ID, "t"))
    assert record.message == "a\N{REPLACEMENT CHARACTER}b?"


def test_a_str_that_fails_is_no_failure():
    class Bad(Exception):
        def __str__(self):
            raise RuntimeError

    assert "RuntimeError" in unpack_failure(failure_body(Bad(), ID, "t")).message


def test_a_local_class_is_remote():
    class Local(Exception):
        pass

    assert isinstance(through(Local("x")), RemoteError)
