"""README's quick start, line by line, as a newcomer would type it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.stage import ROOT, Stage

pytestmark = pytest.mark.e2e


def quick_start() -> str:
    text = (ROOT / "README.md").read_text()
    match = re.search(r"<!-- quick start:.*?-->(.*?)<!-- end of quick start -->", text, re.DOTALL)
    assert match is not None
    return match[1]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", quick_start(), re.DOTALL)


def command_lines() -> list[str]:
    return [
        line.removeprefix("$ ")
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def test_the_quick_start_is_what_this_module_runs():
    assert command_lines() == [
        "pip install .",
        "chervil -A tasks dev",
        "chervil -A tasks call tasks.add 2 3 --wait",
    ]
    assert len(blocks("python")) == 2


@pytest.mark.timeout(240)
def test_the_quick_start_works_in_an_empty_folder(tmp_path: Path, stage: Stage):
    environment = tmp_path / "env"
    source = tmp_path / "source"
    for name in ("client", "broker", "worker"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "protocol.md"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, stdin=subprocess.DEVNULL)
    install, dev, call = command_lines()
    bin_path = f"{environment / 'bin'}:{os.environ['PATH']}"
    # The registry gives out the tools; nothing of this project's own environment may shine through.
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "COVERAGE", "VIRTUAL_ENV"))
    }
    clean |= {"PATH": bin_path}
    shell = {"shell": True, "env": clean, "stdin": subprocess.DEVNULL, "timeout": 200}
    subprocess.run(install, cwd=source, check=True, **shell)

    project = stage.folder / "project"
    project.mkdir()
    tasks_file, program = blocks("python")
    (project / "tasks.py").write_text(tasks_file)
    (project / "program.py").write_text(program)
    running = subprocess.Popen(
        ["sh", "-c", f"exec {dev}"],
        cwd=project,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert running.stdout is not None
        seen = []
        for line in running.stdout:
            seen.append(line)
            if "runs tasks (" in line:
                break
        else:
            pytest.fail("dev ended: " + "".join(seen))
        answer = subprocess.run(call, cwd=project, capture_output=True, text=True, check=True, **shell)
        assert answer.stdout == "5\n"
        answer = subprocess.run(
            "python program.py", cwd=project, capture_output=True, text=True, check=True, **shell
        )
        assert answer.stdout == "5\n"
    finally:
        running.terminate()
        assert running.stdout is not None
        running.stdout.read()
        running.stdout.close()
        assert running.wait(20) in (0, 130, 143)
