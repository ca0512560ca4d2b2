import os
from pathlib import Path

import pytest

from chervil_worker.cpus import cpu_count


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def test_affinity_counts_where_there_is_no_quota(tmp_path: Path):
    assert cpu_count(tmp_path) == 8


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("max 100000", 8),
        ("250000 100000", 3),
        ("50000 100000", 1),
        ("9900000 100000", 8),
        ("1 0", 8),
        ("x", 8),
    ],
)
def test_quota_counts_where_it_is_less(tmp_path: Path, text: str, count: int):
    (tmp_path / "cpu.max").write_text(f"{text}\n")
    assert cpu_count(tmp_path) == count


@pytest.mark.parametrize(("quota", "count"), [("-1", 8), ("150000", 2)])
def test_quota_of_version_1_counts_too(tmp_path: Path, quota: str, count: int):
    folder = tmp_path / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_count(tmp_path) == count


def test_all_cpus_count_where_there_is_no_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert cpu_count(tmp_path) == 5
