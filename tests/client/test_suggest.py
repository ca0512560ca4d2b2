import pytest

from chervil.suggest import did_you_mean, edit_distance, nearest


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "abc", 3), ("queue", "queue", 0), ("qeue", "queue", 1), ("kitten", "sitting", 3)],
)
def test_edit_distance(a, b, distance):
    assert edit_distance(a, b) == distance == edit_distance(b, a)


def test_the_nearest_name_is_meant():
    assert nearest("prority", ["queue", "priority"]) == "priority"
    assert nearest("colour", ["queue", "priority"]) is None


def test_a_short_name_is_not_near_everything():
    assert nearest("xy", ["ab", "eta"]) is None


def test_the_end_of_a_message():
    assert did_you_mean("quue", ["queue"]) == "; did you mean 'queue'?"
    assert did_you_mean("zzz", ["queue"]) == ""
