import pytest


@pytest.fixture
def add(app):
    @app.task
    def add(x: int, y: int = 1) -> int:
        """Adds."""
        return x + y

    return add


def test_unknown_options_are_refused_with_the_near_one(add, app):
    with pytest.raises(TypeError, match="did you mean 'countdown'"):
        add.apply_async([1], countdwn=1)
    with pytest.raises(TypeError, match="has no option 'link'"):
        add.apply_async([1], link=None)
    with pytest.raises(TypeError, match="did you mean 'queue'"):
        app.task(queu="x")
    with pytest.raises(TypeError, match="'task_id'"):
        add.delay_many([(1,)], task_id="x")
