import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chervil_worker import lifeline


def test_open_descriptors_are_those_that_are_open():
    read, write = os.pipe()
    assert {read, write} <= lifeline.open_descriptors()
    os.close(read)
    os.close(write)
    assert not {read, write} & lifeline.open_descriptors()


def test_open_descriptors_are_found_without_proc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lifeline, "_DESCRIPTORS", Path("/nonexistent"))
    read, write = os.pipe()
    assert {read, write} <= lifeline.open_descriptors()
    os.close(read)
    os.close(write)


def test_threads_are_counted_without_proc(monkeypatch: pytest.MonkeyPatch):
    assert lifeline.thread_count() >= 1
    monkeypatch.setattr(lifeline, "_TASKS", Path("/nonexistent"))
    assert lifeline.thread_count() >= 1


def test_kill_group_reaches_what_a_child_has_started():
    inner = (
        "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    )
    child = subprocess.Popen([sys.executable, "-c", inner], stdout=subprocess.PIPE, process_group=0)
    assert child.stdout is not None
    grandchild = os.pidfd_open(int(child.stdout.readline()))
    lifeline.kill_group(child.pid)
    assert child.wait(10) == -signal.SIGKILL
    import select

    assert select.select([grandchild], [], [], 10)[0]
    os.close(grandchild)
    child.stdout.close()
    lifeline.kill_group(child.pid)  # gone already: nothing happens
