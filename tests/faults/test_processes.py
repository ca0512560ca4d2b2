import os
import subprocess
import sys

from tests.faults import processes

SLEEP = "import time; time.sleep(60)"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
print(child.pid, flush=True)
child.wait()
"""


def test_marked_processes_are_found_with_their_children_and_gone_when_killed(tmp_path):
    mark = f"MARK={tmp_path}"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env=os.environ | {"MARK": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent_of = processes.parents()
        assert processes.children(parent.pid, parent_of) == [child]
        assert set(processes.marked(mark)) == {parent.pid, child}
        assert set(processes.wait_until_none(mark, 0)) == {parent.pid, child}
        assert processes.kill(child)
        parent.wait(10)
    assert processes.wait_until_none(mark, 10) == []
    assert not processes.kill(parent.pid)
