"""How many CPUs this process may use."""

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def cpu_count(cgroups: Path = _CGROUPS) -> int:
    """CPUs by affinity, or by the cgroup's quota where that is less; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroups)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    """CPUs that the cgroup's quota comes to (version 2, then 1); None without one.

    Read where a container sees its own cgroup, at the root.
    """
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max": no quota
        return None
    return share if share > 0 else None
