"""Sparse rows do what the same rows do as an array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.algorithms.estimators import matrices
from paibook.algorithms.estimators.matrices import SparseRows, dense_blocks, index_range, libsvm_rows
from paibook.runtimes.shards import shard


def sparse(dense: np.ndarray) -> SparseRows:
    rows, columns = np.nonzero(dense)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    return SparseRows(starts, columns, dense[rows, columns], dense.shape[1])


@given(seed=st.integers(0, 100), rows=st.integers(0, 7), width=st.integers(1, 5))
def test_products_slices_and_the_transpose(seed: int, rows: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    dense = generator.normal(size=(rows, width)) * (generator.random((rows, width)) < 0.4)
    ours = sparse(dense)
    assert ours.shape == dense.shape
    np.testing.assert_array_equal(ours.toarray(), dense)
    for shape in ((), (3,)):
        right, left = generator.normal(size=(width, *shape)), generator.normal(size=(rows, *shape))
        np.testing.assert_allclose(ours @ right, dense @ right, atol=1e-12)
        np.testing.assert_allclose(ours.T @ left, dense.T @ left, atol=1e-12)
    start, stop = sorted(generator.integers(0, rows + 2, 2))
    np.testing.assert_array_equal(ours[start:stop].toarray(), dense[start:stop])


def test_blocks_are_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "BLOCK", 8)
    dense = np.arange(21.0).reshape(7, 3)
    blocks = list(dense_blocks(sparse(dense)))
    assert [len(block) for block in blocks] == [2, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), dense)


def test_rows_of_a_libsvm_file(tmp_path: Path) -> None:
    (tmp_path / "a.libsvm").write_text("1 1:0.5 3:2\n0\n1 2:-1\n")
    table = shard(tmp_path / "a.libsvm").data
    assert index_range(table) == (1, 3)
    expected = [[0.5, 0, 2], [0, 0, 0], [0, -1, 0]]
    assert libsvm_rows(table, 3, 1).toarray().tolist() == expected
    assert libsvm_rows(table[1:], 4, 0).toarray().tolist() == [[0, 0, 0, 0], [0, 0, -1, 0]]
    assert index_range(table[1:2]) is None
