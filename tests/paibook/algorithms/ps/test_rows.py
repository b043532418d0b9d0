"""Rows by key, in whatever form they are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from paibook.algorithms.ps.rows import as_table, keyed_rows, labelled
from paibook.errors import DataError
from paibook.runtimes.shards import shard

DENSE = np.array([[1.0, 0, 2], [0, 0, 0], [0, 3, 0], [4, 5, 0]])
CSR = sparse.csr_matrix(DENSE)
TRIPLE = (CSR.indices, CSR.data, CSR.indptr)


def as_array(X: Any, order: Any = slice(None)) -> np.ndarray:
    rows = keyed_rows(X)
    batch = rows.batch(np.arange(len(rows))[order])
    found = np.zeros((batch.x.shape[0], 3))
    found[:, batch.keys] = batch.x.toarray()
    return found


@pytest.mark.parametrize(
    ("X", "width"),
    [
        (DENSE, 3),
        (CSR, 3),
        (sparse.coo_array(DENSE), 3),
        (pd.DataFrame(DENSE), 3),
        (TRIPLE, None),
        (as_table(*TRIPLE, np.zeros(4)), None),
    ],
    ids=["array", "csr", "coo", "frame", "triple", "libsvm"],
)
def test_all_forms_are_the_same_rows(X: Any, width: int | None) -> None:
    np.testing.assert_array_equal(as_array(X), DENSE)
    np.testing.assert_array_equal(as_array(X, [3, 0, 3]), DENSE[[3, 0, 3]])
    assert keyed_rows(X).width == width


def test_a_batch_knows_the_keys_it_needs_and_no_others() -> None:
    keys = np.array([5, -(2**62), 5, 2**62], np.int64)
    rows = keyed_rows((keys, np.ones(4), np.array([0, 2, 3, 4])))
    batch = rows.batch(np.array([1, 0]))
    assert batch.keys.tolist() == [-(2**62), 5]
    assert batch.x.toarray().tolist() == [[0, 1], [1, 1]]
    assert rows.batch(np.array([2])).keys.tolist() == [2**62]
    assert len(rows.batch(np.array([], np.int64)).keys) == 0


@given(arrays(np.int8, st.tuples(st.integers(1, 12), st.just(5)), elements=st.integers(0, 2)), st.integers(1, 5))
def test_the_shares_of_an_epoch_are_one_for_each_key(matrix: np.ndarray, size: int) -> None:
    rows = keyed_rows(sparse.csr_matrix(matrix))
    total = np.zeros(5)
    for start in range(0, len(rows), size):
        batch = rows.batch(np.arange(start, min(start + size, len(rows))))
        total[batch.keys] += batch.shares
    np.testing.assert_allclose(total, (matrix != 0).any(axis=0))


@pytest.mark.parametrize(
    ("triple", "message"),
    [
        (([0, 1], [1.0], [0, 2]), r"shapes \(m,\), \(m,\) and \(n \+ 1,\)"),
        (([0.5], [1.0], [0, 1]), "whole numbers; got float64"),
        (([0, 1], [1.0, 2.0], [0, 1]), "end with the number of entries, 2"),
        (([0, 1], [1.0, 2.0], [0, 2, 1, 2]), "never fall"),
        (([0], [np.nan], [0, 1]), "NaN or infinite"),
    ],
)
def test_triples_that_do_not_fit(triple: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        keyed_rows(triple)


def test_labels_come_with_a_pair_a_column_a_table_or_a_shard() -> None:
    y = np.array([0, 1, 1, 0])
    frame = pd.DataFrame(DENSE, columns=list("abc")).assign(y=y)
    for given_X, given_y in [((CSR, y), None), (frame, "y"), (TRIPLE, y), (as_table(*TRIPLE, y), None)]:
        rows, labels = labelled(given_X, given_y)
        assert (len(rows), labels.tolist()) == (4, y.tolist())
    rows, labels = labelled(shard((DENSE, y)), None)
    assert sorted(zip(as_rows(rows), labels.tolist(), strict=True)) == sorted(
        zip(DENSE.tolist(), y.tolist(), strict=True)
    )
    with pytest.raises(DataError, match="labels y beside"):
        labelled(TRIPLE, None)
    with pytest.raises(DataError, match="one label for each row"):
        labelled(TRIPLE, y[:3])


def as_rows(rows: Any) -> list[list[float]]:
    found: list[list[float]] = rows.batch(np.arange(len(rows))).x.toarray().tolist()
    return found


def test_a_table_of_any_keys_can_be_dealt_out() -> None:
    table = as_table(*TRIPLE, [0, 1, 1, 0])
    parts = [shard(table, rank=rank, size=2).data for rank in range(2)]
    assert pyarrow.concat_tables(parts).equals(table)
    np.testing.assert_array_equal(as_array(parts[1]), DENSE[2:])
