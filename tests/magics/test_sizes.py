"""Values in a few words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook_magics.sizes import counted, describe, format_bytes, parse_size, short_bytes, short_count, short_time


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (136_560, "136.6 kB"),
        (8_000_000, "8.0 MB"),
        (2.5e9, "2.5 GB"),
        (3e12, "3.0 TB"),
        (7e15, "7000.0 TB"),
    ],
)
def test_bytes(size: float, text: str) -> None:
    assert format_bytes(size) == text


@given(st.integers(0, 10**18))
def test_bytes_are_never_off_by_more_than_rounding(size: int) -> None:
    number, unit = format_bytes(size).split()
    exponent = ["B", "kB", "MB", "GB", "TB"].index(unit)
    assert abs(float(number) * 1000**exponent - size) <= 0.0501 * 1000**exponent


@pytest.mark.parametrize(
    ("value", "start"),
    [
        (np.zeros((569, 30)), "float64[569, 30], 136.6 kB"),
        (np.float32(1), "float32[], 4 B"),
        (np.zeros(0, dtype="int8"), "int8[0], 0 B"),
        (pd.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]}), "DataFrame[3, 2], "),
        (pd.Series([1, 2, 3]), "int64[3], "),
        ([1, 2, 3], "list[3], "),
        ((), "tuple[0], "),
        ({"a": 1}, "dict[1], "),
        ("hello", "str[5], "),
        (b"ab", "bytes[2], "),
        (7, "int, "),
        (None, "NoneType, "),
        (object(), "object, "),
        (np.ndarray, "type, "),
        (pd.DataFrame, "type, "),
    ],
)
def test_values(value: object, start: str) -> None:
    assert describe(value).startswith(start)


def test_a_size_that_is_known_is_used() -> None:
    assert describe([1, 2], 5_000) == "list[2], 5.0 kB"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("512MB", 512_000_000),
        ("512mb", 512_000_000),
        (" 2 kB ", 2000),
        ("1.5GB", 1_500_000_000),
        (".5 KiB", 512),
        ("1MiB", 1 << 20),
        ("2GiB", 2 << 30),
        ("1TB", 10**12),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["banana", "", "512", "MB", "-1MB", "1e3MB", "1,5GB", "1 PB", "1M", "²MB", "inf GB", "0.1B"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a size .* is expected, .*got"):
        parse_size(text)


@given(st.integers(1, 10**15))
def test_a_size_that_is_written_is_read_again(size: int) -> None:
    assert parse_size(short_bytes(size)) == pytest.approx(size, rel=0.06)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1.0 kB"),
        (9_940, "9.9 kB"),
        (9_960, "10 kB"),
        (45_300_000, "45 MB"),
        (999_600_000, "1.0 GB"),
        (5e15, "5000 TB"),
    ],
)
def test_short_bytes(size: float, text: str) -> None:
    assert short_bytes(size) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (0.25, "0.2"),
        (9, "9"),
        (12.6, "13"),
        (9_999, "9,999"),
        (10_000, "10k"),
        (375_000, "375k"),
        (999_700, "1.0M"),
        (1_240_000, "1.2M"),
        (2e9, "2.0G"),
        (5e13, "50000G"),
    ],
)
def test_short_counts(count: float, text: str) -> None:
    assert short_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_short_times(seconds: float, text: str) -> None:
    assert short_time(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 tasks"), (1, "1 task"), (2, "2 tasks"), (12_000, "12k tasks")])
def test_counted(count: int, text: str) -> None:
    assert counted(count, "task") == text
