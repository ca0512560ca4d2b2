from pathlib import Path

import pytest

from chervil_broker.sizes import available_memory, parse_size, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20),
        ("512MB", 512 << 20),
        ("2g", 2 << 30),
        ("1.5 GiB", 3 << 29),
        ("64k", 65536),
        ("7b", 7),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1", "5 parsecs", "1e9"])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="512MB"):
        parse_size(text)


def test_sizes_are_shown_for_people():
    assert [show_size(n) for n in (7, 2048, 3 << 20, 5 << 29, 3 << 40)] == [
        "7 B",
        "2.0 KiB",
        "3.0 MiB",
        "2.5 GiB",
        "3.0 TiB",
    ]


def test_memory_is_the_cgroups_limit_where_there_is_one(tmp_path):
    limit = tmp_path / "memory.max"
    limit.write_text("123456789\n")
    assert available_memory((limit,)) == 123456789


def test_memory_is_the_machines_without_a_limit(tmp_path):
    unlimited = tmp_path / "memory.max"
    unlimited.write_text("max\n")
    ram = available_memory(())
    assert available_memory((Path("/nonexistent"), unlimited)) == ram > 1 << 28
