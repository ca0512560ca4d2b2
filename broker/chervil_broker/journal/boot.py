"""Whether the machine itself has begun anew since a journal was written."""

from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id(path: Path = BOOT_ID) -> str:
    """What Linux calls this run of its kernel; "" on a system that does not say."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
