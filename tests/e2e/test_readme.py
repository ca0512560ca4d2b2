"""README's quick start, line by line, as a newcomer would type it; and each other snippet, pasted as it is."""

import ast
import builtins
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


def blocks(kind: str, text: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


#: Every snippet of Python that a user may paste.
SNIPPETS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(blocks("python", path.read_text()), 1)
]


def command_lines() -> list[str]:
    return [
        line.removeprefix("$ ")
        for block in blocks("console", quick_start())
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def test_the_quick_start_is_what_this_module_runs():
    assert command_lines() == [
        "pip install .",
        "chervil -A tasks dev",
        "chervil -A tasks call tasks.add 2 3 --wait",
    ]
    assert len(blocks("python", quick_start())) == 2


def unbound(snippet: str) -> set[str]:
    """Names that a snippet uses and neither makes nor imports."""
    nodes = list(ast.walk(ast.parse(snippet)))
    made = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    made |= {
        node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    made |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            made |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    return used - made - set(vars(builtins))


def test_a_name_that_a_snippet_does_not_import_is_noticed():
    assert unbound("import os\ndef f(x): return urllib.request.urlopen(os.path.join(x))") == {"urllib"}


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_each_snippet_runs_as_it_is_pasted(snippet: str, tmp_path: Path):
    """Beside the quick start's tasks.py, and without a broker: tasks run where they are called."""
    assert unbound(snippet) == set()
    tasks_file, _ = blocks("python", quick_start())
    (tmp_path / "tasks.py").write_text(f"{tasks_file}\napp.conf.task_always_eager = True\n")
    (tmp_path / "snippet.py").write_text(snippet)
    done = subprocess.run(
        [sys.executable, "snippet.py"], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


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
    tasks_file, program = blocks("python", quick_start())
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
