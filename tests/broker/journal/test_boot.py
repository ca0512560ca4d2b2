import re

from chervil_broker.journal.boot import BOOT_ID, boot_id


def test_boot_id_is_what_the_kernel_says():
    if BOOT_ID.exists():
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", boot_id())
    assert boot_id() == boot_id()


def test_system_that_does_not_say_has_none(tmp_path):
    assert boot_id(tmp_path / "boot_id") == ""
