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


def test_gather_leaves_rows_without_a_slot_alone() -> None:
    out = np.full((3, 2), 7, np.int64)
    steps.gather(np.arange(8).reshape(4, 2), np.array([3, -1, 0]), out)
    assert out.tolist() == [[6, 7], [7, 7], [0, 1]]
