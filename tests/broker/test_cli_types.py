import click
import pytest

from chervil_broker.cli_types import SizeType


def test_a_size_is_written_as_people_write_it():
    assert SizeType().convert("512MB", None, None) == 512 << 20
    assert SizeType().convert(77, None, None) == 77


def test_what_is_no_size_is_a_usage_error():
    with pytest.raises(click.BadParameter, match="is no size; write it like 512MB"):
        SizeType().convert("much", None, None)
