"""The judge of command lines, judged."""

import pytest

from tests.deploy.commandlines import in_shell, mistakes


@pytest.mark.parametrize(
    "line",
    [
        "worker -c 4 --queues=a,b $WORKER_OPTIONS",
        "-A tasks worker --concurrency 4",
        "broker --bind 127.0.0.1:1 --memory",
        "health -q --json",
        "call tasks.add 2 3",
    ],
)
def test_a_line_without_a_mistake_passes(line):
    assert mistakes(line.split()) == []


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("wrker -c 4", "chervil has no command wrker"),
        ("worker --concurency 4", "worker has no option --concurency"),
        ("broker --binds=x", "broker has no option --binds"),
        ("--whatever worker", "chervil has no option --whatever"),
    ],
)
def test_a_planted_mistake_is_found(line, mistake):
    assert mistakes(line.split()) == [mistake]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("chervil status", ["status"]),
        ("/opt/chervil/bin/chervil status | less", ["status"]),
        ("sudo -u chervil XDG_STATE_HOME=/var/lib chervil status > file", ["status"]),
        ("docker compose run --rm -T broker broker user list  # all of them", ["broker", "user", "list"]),
        ("docker compose exec broker chervil status", ["status"]),
        (
            "docker run -d --name chervil -v a:/var/lib/chervil \\\n chervil broker --memory",
            ["broker", "--memory"],
        ),
        ("docker exec -i broker chervil broker user list", ["broker", "user", "list"]),
        ('cd / && exec sudo -u chervil A=b /bin/chervil "$@"', ["$@"]),
        ('exec runuser -u chervil -- env A=b C=d /bin/chervil "$@"', ["$@"]),
        ("echo 'eval \"$(chervil completion zsh)\"' >> ~/.zshrc", ["completion", "zsh"]),
        ("a=1 chervil worker \\\n  -c 4", ["worker", "-c", "4"]),
    ],
)
def test_lines_of_a_shell_are_understood(line, words):
    assert list(in_shell(line)) == [words]


def test_other_lines_are_passed_over():
    assert (
        list(in_shell("systemctl restart chervil-broker\ninstall -o chervil x\ndocker build -t chervil ."))
        == []
    )
