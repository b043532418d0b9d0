"""Values in a few words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook_magics.sizes import describe, format_bytes


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
