import click
import pytest

from chervil_broker.cli_types import OrNone, SizeType


def test_a_size_is_written_as_people_write_it():
    assert SizeType().convert("512MB", None, None) == 512 << 20
    assert SizeType().convert(77, None, None) == 77


def test_what_is_no_size_is_a_usage_error():
    with pytest.raises(click.BadParameter, match="is no size; write it like 512MB"):
        SizeType().convert("much", None, None)


def test_none_is_a_word_for_no_limit():
    quota = OrNone(SizeType())
    assert quota.convert("none", None, None) == 0
    assert quota.convert("1KB", None, None) == 1024
    with pytest.raises(click.BadParameter, match="'0' is not 1 or more; without a limit it is: none"):
        quota.convert("0", None, None)
