from chervil import Chervil, current_app


def test_the_newest_app_is_current_and_the_default_steps_in():
    default = current_app.main
    assert default is None
    quiet = Chervil("quiet", set_as_current=False)
    assert current_app != quiet
    quiet.set_default()
    assert current_app == quiet
    newest = Chervil("newest")
    assert current_app.main == "newest"
    assert repr(current_app) == "<current_app: <Chervil newest>>"
    assert hash(current_app) == hash(newest)
    current_app.main = "renamed"
    assert newest.main == "renamed"
    assert repr(Chervil()) == "<Chervil (no name)>"
