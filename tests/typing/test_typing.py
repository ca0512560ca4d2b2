"""User code under both type checkers: what must pass passes, what must not is refused line by line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FILES = ["accepted.py", "refused.py"]

pytestmark = pytest.mark.timeout(300)


def refused_lines(name):
    lines = (HERE / name).read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}


def run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def mypy():
    done = run(sys.executable, "-m", "mypy", "--strict", *[str(HERE / name) for name in FILES])
    found = {name: {} for name in FILES}
    for path, line, text in re.findall(r"^(.+?):(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        found.setdefault(Path(path).name, {})[int(line)] = text
    assert done.returncode == 1, done.stdout + done.stderr
    return found


@pytest.fixture(scope="module")
def pyright():
    files = [str(HERE / name) for name in FILES]
    done = run(sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *files)
    found = {name: {} for name in FILES}
    for item in json.loads(done.stdout)["generalDiagnostics"]:
        if item["severity"] == "error":
            line = item["range"]["start"]["line"] + 1
            found.setdefault(Path(item["file"]).name, {})[line] = item["message"]
    return found


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
@pytest.mark.parametrize("name", FILES)
def test_checkers_refuse_just_the_marked_lines(checker, name, request):
    found = request.getfixturevalue(checker)[name]
    unexpected = {line: text for line, text in found.items() if line not in refused_lines(name)}
    assert unexpected == {}
    assert set(found) == refused_lines(name)
