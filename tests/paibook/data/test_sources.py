"""Entries of a plan's inputs: paths, variables, datasets, runs, collections."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
import pytest

from paibook.data.dataset import Dataset
from paibook.data.parts import PartWriter
from paibook.data.sources import input_splits, kind_of
from paibook.data.splits import file_splits, records
from paibook.data.staging import Staging
from paibook.data.variables import PendingSplit
from paibook.errors import DataError, PlanError


def read(splits: Any) -> list[Any]:
    return [record for split in pickle.loads(pickle.dumps(splits)) for record in records(split)]


def written(folder: Path, name: str, rows: list[dict[str, Any]], by: tuple[str, ...]) -> Dataset:
    with Staging(folder / name, "run", partition_by=by) as staging:
        writer: PartWriter = staging.writer(0)
        sink = writer.open()
        sink.add(rows)
        return staging.commit(sink.close())


@pytest.mark.parametrize("entry", [3, {}, {"path": 3}, {"name": "a"}])
def test_what_is_no_entry_is_refused(entry: Any) -> None:
    with pytest.raises(PlanError, match="an input is a path, a variable or a run"):
        kind_of(entry)


def test_entries_come_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.txt").write_text("two\n")
    entries = [str(tmp_path / "a.txt"), {"path": str(tmp_path / "b.txt"), "name": "x"}, {"variable": "v"}]
    splits = input_splits(entries, 1, {"v": [1, 2]})
    assert read(splits) == ["one", "two", 1, 2]
    assert len(splits) == 3  # both small files in one


@pytest.mark.parametrize("name", ["d.parquet", "d.jsonl", "d.csv"])
def test_a_partitioned_dataset_read_back_has_all_its_columns(tmp_path: Path, name: str) -> None:
    rows = [{"year": year, "city": city, "n": n} for n, (year, city) in enumerate([(2023, "São"), (2024, None)])]
    dataset = written(tmp_path, name, rows, ("year", "city"))
    number = str if name == "d.csv" else int
    expected = [{"n": number(row["n"]), "year": row["year"], "city": row["city"]} for row in rows]
    for entry in (str(dataset.path), {"variable": "d"}, {"run": "r1"}):
        splits = input_splits([entry], 1, {"d": dataset}, typed=True, output_of={"r1": dataset}.__getitem__)
        assert read(splits) == expected
        tables = [table for split in splits for table in split.tables()]
        assert pyarrow.concat_tables(tables).to_pylist() == [{**row, "n": int(row["n"])} for row in expected]
        chosen = pyarrow.concat_tables([table for split in splits for table in split.tables(["city", "n"])])
        assert chosen.to_pylist() == [{"city": row["city"], "n": int(row["n"])} for row in expected]
        only = [table for split in splits for table in split.tables(["year"])]
        assert [row for table in only for row in table.to_pylist()] == [{"year": 2023}, {"year": 2024}]


def test_types_of_partitions_are_those_the_dataset_knows(tmp_path: Path) -> None:
    dataset = written(tmp_path, "d", [{"zip": "01234", "n": 1}], ("zip",))
    assert read(input_splits([{"variable": "d"}], 1, {"d": dataset})) == [{"n": 1, "zip": "01234"}]
    assert read(file_splits([str(dataset.path)], 1)) == [{"n": 1, "zip": 1234}]


def test_a_dataset_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the input 'd' was .*gone, which is not there any more"):
        input_splits([{"variable": "d"}], 1, {"d": Dataset(tmp_path / "gone", 1, 1)})


def test_a_run_may_be_a_path_and_needs_a_way_to_its_output(tmp_path: Path) -> None:
    (tmp_path / "part-0.jsonl").write_text("[1]\n")
    assert read(input_splits([{"run": "r1"}], 1, {}, output_of=lambda run: str(tmp_path))) == [[1]]
    with pytest.raises(PlanError, match="'r1'"):
        input_splits([{"run": "r1"}], 1, {})


def test_a_variable_that_is_not_there() -> None:
    with pytest.raises(PlanError, match="'nope' is not defined"):
        input_splits([{"variable": "nope"}], 1, {})


class Bag:
    """What a Dask collection looks like from outside."""

    def __dask_graph__(self) -> dict[str, Any]:
        return {}

    def to_delayed(self) -> list[Any]:
        return []


def test_a_collection_is_computed_and_its_partitions_come_when_they_are_there() -> None:
    partitions = [[1, 2], pandas.DataFrame({"a": [3]}), numpy.array([4.0])]
    splits = input_splits([{"variable": "bag"}], 2, {"bag": Bag()}, compute=lambda bag: ["f0", "f1", "f2"])
    assert [type(split) for split in splits] == [PendingSplit] * 3
    assert [split.pending for split in splits] == ["f0", "f1", "f2"]  # type: ignore[union-attr]
    sent = [pickle.loads(pickle.dumps(split)) for split in splits]
    assert [split.pending for split in sent] == [None] * 3
    there = [split.with_value(value) for split, value in zip(sent, partitions, strict=True)]
    assert [list(records(split)) for split in there] == [[1, 2], [{"a": 3}], [4.0]]
    assert next(iter(there[0].batches())).place(1) == "bag, partition 0, item 1"
    assert [table.to_pylist() for table in there[1].tables()] == [[{"a": 3}]]
    with pytest.raises(PlanError, match="Dask collection"):
        input_splits([{"variable": "bag"}], 2, {"bag": Bag()})


def test_real_dask_collections_are_told_from_other_values() -> None:
    bag = pytest.importorskip("dask.bag").from_sequence([1, 2, 3, 4], npartitions=2)
    delayed = bag.to_delayed()
    for value in (bag, delayed):
        splits = input_splits([{"variable": "v"}], 1, {"v": value}, compute=lambda v: [0, 1])
        assert [type(split) for split in splits] == [PendingSplit] * 2
    assert read(input_splits([{"variable": "v"}], 1, {"v": [[], {}]})) == [[], {}]
