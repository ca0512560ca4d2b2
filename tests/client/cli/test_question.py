"""Questions before something that cannot be taken back; the verbs that ask show the rest."""

import click
import pytest

from chervil.cli.question import ask


def test_without_a_terminal_it_names_the_option_that_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(click.UsageError, match="--yes does not ask"):
        ask("Sure?", unasked="--yes", declined="nothing was done")


@pytest.mark.parametrize("answer", [True, False])
def test_the_answer_counts(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.confirm", lambda question, **how: answer)
    if answer:
        ask("Sure?", unasked="--yes", declined="nothing was done")
    else:
        with pytest.raises(click.ClickException, match="nothing was done"):
            ask("Sure?", unasked="--yes", declined="nothing was done")
