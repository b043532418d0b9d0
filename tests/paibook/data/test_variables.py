"""Notebook variables as input."""

from __future__ import annotations

import threading
from typing import Any

import pandas
import pyarrow
import pytest

from paibook.data.variables import variable_splits
from paibook.errors import DataError


def read(value: Any, splits: int | None = None) -> list[Any]:
    found = variable_splits("docs", value, 2, splits)
    return [record for split in found for batch in split.batches() for record in batch.records]


@pytest.mark.parametrize("splits", [None, 1, 3, 100])
def test_items_come_once_and_in_order(splits: int | None) -> None:
    assert read(list(range(10)), splits) == list(range(10))
    assert read((str(i) for i in range(10)), splits) == [str(i) for i in range(10)]
    assert read([], splits) == []


def test_a_few_items_become_a_task_each() -> None:
    assert len(variable_splits("docs", [1, 2, 3], 2)) == 3


def test_rows_of_frames_and_tables_are_dicts() -> None:
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert read(pandas.DataFrame(rows)) == rows
    assert read(pyarrow.Table.from_pylist(rows)) == rows


def test_a_place_names_variable_and_item() -> None:
    split = variable_splits("docs", list("abcdefgh"), 1, 2)[1]
    assert next(iter(split.batches())).place(2) == "docs, item 6"


@pytest.mark.parametrize("value", ["text", b"bytes", 3, None])
def test_what_cannot_be_iterated_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match="'docs'"):
        read(value)


def test_a_dict_is_refused_with_advice() -> None:
    with pytest.raises(DataError, match=r"pass list\(docs.items\(\)\)"):
        read({"a": 1})


def test_items_that_cannot_be_pickled_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"'docs' has items .* cannot be sent to workers"):
        read([threading.Lock()])
