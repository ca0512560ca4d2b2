import functools
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil.arguments import Arguments


def none(): ...
def two(a, b): ...
def defaults(a, b=1, c=2): ...
def var(a, *rest): ...
def keyword(a, *, b, c=1): ...
def open_(a, **more): ...
def only(a, b, /, c, d=1): ...
def everything(a, /, b, c=1, *rest, d, e=2, **more): ...


@functools.wraps(defaults)
def wrapped(*args, **kwargs): ...


SHAPES = [none, two, defaults, var, keyword, open_, only, everything, wrapped, functools.partial(defaults, 1)]


@given(
    st.sampled_from(SHAPES),
    st.lists(st.none(), max_size=5),
    st.dictionaries(st.sampled_from("abcdefz"), st.none(), max_size=5),
)
def test_it_agrees_with_inspect(fn, args, kwargs):
    try:
        inspect.signature(fn).bind(*args, **kwargs)
        fits = True
    except TypeError:
        fits = False
    try:
        Arguments(fn).check("t", args, kwargs)
        accepted = True
    except TypeError:
        accepted = False
    assert accepted == fits


def test_the_message_names_the_task_and_its_signature():
    with pytest.raises(TypeError, match=r"tasks\.two\(b\): too many positional"):
        Arguments(two, skip=1).check("tasks.two", [1, 2], {})


@given(st.lists(st.none(), max_size=4), st.dictionaries(st.sampled_from("abcd"), st.none(), max_size=3))
def test_the_self_of_a_bound_task_is_left_out(args, kwargs):
    def bound(self, a, /, b=1): ...

    def free(a, /, b=1): ...

    outcomes = []
    for arguments in (Arguments(bound, skip=1), Arguments(free)):
        try:
            arguments.check("t", args, kwargs)
            outcomes.append(True)
        except TypeError:
            outcomes.append(False)
    assert outcomes[0] == outcomes[1]
