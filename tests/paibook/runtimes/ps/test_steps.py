"""The compiled loops: who loads numba, and where compiled code may be kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from paibook.runtimes.ps import jit as jit_module
from paibook.runtimes.ps import steps


def test_only_servers_load_numba() -> None:
    code = """
import sys
import paibook as pai
import paibook.runtimes.ps.client, paibook.runtimes.ps.driver, paibook.runtimes.ps.worker
pai.Adam, pai.ByCount
print([name for name in ("llvmlite", "ml_dtypes", "numba") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_where_nothing_can_be_kept_it_compiles_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real = jit_module.njit

    def njit(cache: bool = False, **options: Any) -> Callable[..., Any]:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(jit_module, "njit", njit)
    assert jit_module.jit(lambda x: 1 / x)(0.0) == np.inf


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_wild_rows_are_those_that_are_not_finite(dtype: str) -> None:
    pytest.importorskip("ml_dtypes")
    values = np.array([[0, -1], [np.nan, 1], [1, np.inf], [-np.inf, np.nan], [1e-6, 6e4]]).astype(dtype)
    wild = steps.wild_rows(values)
    assert wild is not None
    assert wild.tolist() == [False, True, True, True, False]
    assert steps.wild_rows(values[[0, 4]]) is None
    assert steps.wild_rows(np.full((2, 2), 2**62)) is None


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_gather_leaves_rows_without_a_slot_alone(width: int, dtype: str) -> None:
    rows, out = np.arange(4 * width, dtype=dtype).reshape(4, width), np.full((3, width), 7, dtype)
    steps.gather(rows, np.array([3, -1, 0]), out)
    assert out.tolist() == [rows[3].tolist(), [7] * width, rows[0].tolist()]


def test_keys_that_rise_are_distinct() -> None:
    assert steps.increasing(np.array([-3, 0, 2**62]))
    assert not steps.increasing(np.array([1, 2, 2]))
    assert not steps.increasing(np.array([2, 1, 3]))
    assert steps.increasing(np.empty(0, np.int64))
