"""Sizes as people write them, and how much memory this machine allows."""

import os
import re
from pathlib import Path

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def parse_size(text: str) -> int:
    """Bytes from `512MB`, `2g`, `1048576`; K, M, G and T are powers of 1024. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write it like 512MB or 2GB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def show_size(size: int) -> str:
    """A size for people: `1.5 GiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def available_memory(cgroup_limits: tuple[Path, ...] = _CGROUP_LIMITS) -> int:
    """Bytes this process may use: the cgroup's limit where there is one, else the machine's RAM."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in cgroup_limits:
        try:
            limit = int(path.read_text())
        except (OSError, ValueError):
            continue
        return min(limit, ram)
    return ram
