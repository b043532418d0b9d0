"""A task's records become part files, in bounded memory."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from paibook.data import sinks
from paibook.data.frames import common_schema
from paibook.data.parts import Part, PartWriter, rewrite
from paibook.errors import DataError


def write(folder: Path, format: str, chunks: list[list[Any]], **options: Any) -> list[Part]:
    sink = PartWriter(folder, format, 3, **options).open()
    for records in chunks:
        sink.add(records)
    return sink.close()


def rows(folder: Path, parts: list[Part]) -> list[dict[str, Any]]:
    return [row for part in parts for row in pyarrow.parquet.ParquetFile(folder / part.name).read().to_pylist()]


def test_nothing_written_is_no_part(tmp_path: Path) -> None:
    assert write(tmp_path, "parquet", [[], []]) == []
    assert os.listdir(tmp_path) == []


def test_row_groups_are_written_as_they_come(tmp_path: Path) -> None:
    (part,) = write(tmp_path, "parquet", [[{"a": n}] * 100 for n in range(5)], buffer=1)
    file = pyarrow.parquet.ParquetFile(tmp_path / part.name)
    assert file.num_row_groups == 5
    assert (part.number, part.rows, part.size) == (3, 500, (tmp_path / part.name).stat().st_size)
    assert part.schema == file.schema_arrow


def test_small_chunks_share_a_row_group(tmp_path: Path) -> None:
    (part,) = write(tmp_path, "parquet", [[{"a": n}] for n in range(50)])
    assert pyarrow.parquet.ParquetFile(tmp_path / part.name).num_row_groups == 1


@pytest.mark.parametrize("buffer", [1, 1 << 20])
def test_a_schema_that_widens(tmp_path: Path, buffer: int) -> None:
    chunks = [[{"a": 1, "b": None}], [{"a": 2.5, "b": "x"}], [{"a": 3, "b": None}], [{"a": 4, "b": "y", "c": 1}]]
    parts = write(tmp_path, "parquet", chunks, buffer=buffer)
    assert len(parts) == (3 if buffer == 1 else 1)
    assert [part.name for part in parts] == sorted(part.name for part in parts)
    schema = common_schema([part.schema for part in parts if part.schema is not None])
    again = [rewrite(tmp_path, "parquet", part, schema) for part in parts]
    assert [part.name for part in again] == sorted(part.name for part in again)
    assert [part.schema for part in again] == [schema] * len(parts)
    assert rows(tmp_path, again) == [{"a": 1, "b": None, "c": None} | chunk[0] for chunk in chunks]


def test_chunks_without_a_common_type(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"partition 3: records do not fit into one table"):
        write(tmp_path, "parquet", [[{"a": 1}], [{"a": "x"}]], buffer=1)


def test_lines_are_streamed(tmp_path: Path) -> None:
    (part,) = write(tmp_path, "jsonl", [[{"a": 1}], [[1, "ü"]]])
    assert (tmp_path / part.name).read_text(encoding="utf-8") == '{"a": 1}\n[1, "ü"]\n'
    assert (part.rows, part.schema, part.size) == (2, None, (tmp_path / part.name).stat().st_size)


def test_csv_has_one_header(tmp_path: Path) -> None:
    (part,) = write(tmp_path, "csv", [[{"a": 1, "b": 'say "x",\n'}], [{"a": 2, "b": "y"}]], buffer=1)
    with (tmp_path / part.name).open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b"], ["1", 'say "x",\n'], ["2", "y"]]


def test_csv_is_rewritten_in_a_wider_schema(tmp_path: Path) -> None:
    parts = write(tmp_path, "csv", [[{"a": 1, "b": None}], [{"a": 2.5, "b": "007"}]], buffer=1)
    schema = common_schema([part.schema for part in parts if part.schema is not None])
    again = [rewrite(tmp_path, "csv", part, schema) for part in parts]
    assert [(tmp_path / part.name).read_text() for part in again] == ['"a","b"\n1,\n', '"a","b"\n2.5,"007"\n']


@pytest.mark.parametrize("format", ["parquet", "jsonl", "csv"])
def test_tables_are_taken_as_they_are(tmp_path: Path, format: str) -> None:
    sink = PartWriter(tmp_path, format, 0).open()
    frame = pandas.DataFrame({"a": [1, 2], "c": pandas.Categorical(["x", "y"])}, index=[7, 8])
    sink.add_table(pyarrow.Table.from_pandas(frame, preserve_index=False))
    sink.add_table(pyarrow.table({"a": [3], "c": ["z"]}))
    (part,) = sink.close()
    assert part.rows == 3
    content = (tmp_path / part.name).read_text() if format != "parquet" else ""
    if format == "parquet":
        assert rows(tmp_path, [part]) == [{"a": 1, "c": "x"}, {"a": 2, "c": "y"}, {"a": 3, "c": "z"}]
    elif format == "csv":
        assert content == '"a","c"\n1,"x"\n2,"y"\n3,"z"\n'
    else:
        assert [json.loads(line)["c"] for line in content.splitlines()] == ["x", "y", "z"]


@pytest.mark.parametrize("format", ["parquet", "jsonl", "csv"])
def test_an_aborted_sink_leaves_no_file(tmp_path: Path, format: str) -> None:
    sink = PartWriter(tmp_path, format, 0, buffer=1).open()
    sink.add([{"a": 1}])
    sink.add([{"a": 2.5}])
    sink.abort()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("format", ["parquet", "jsonl", "csv"])
def test_folders_hold_what_belongs_there_in_order(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "OPEN_FILES", 2)  # so that files are closed and others begun
    records = [{"k": n % 5, "s": "ab"[n % 2], "n": n} for n in range(100)]
    parts = write(tmp_path, format, [records[:50], records[50:]], partition_by=("k", "s"), buffer=1)
    assert len(parts) == 20
    assert len({Path(part.name).parent for part in parts}) == 10
    assert sum(part.rows for part in parts) == 100
    for k, s in {(row["k"], row["s"]) for row in records}:
        files = sorted((tmp_path / f"k={k}" / f"s={s}").iterdir())
        expected = [row["n"] for row in records if (row["k"], row["s"]) == (k, s)]
        assert [n for file in files for n in numbers(file)] == expected


def numbers(file: Path) -> list[int]:
    if file.suffix == ".parquet":
        content: list[int] = pyarrow.parquet.ParquetFile(file).read().to_pydict()["n"]
        return content
    if file.suffix == ".csv":
        return [int(line) for line in file.read_text().splitlines()[1:]]
    return [json.loads(line)["n"] for line in file.read_text().splitlines()]


def test_no_more_files_are_open_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "OPEN_FILES", 10)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else pytest.skip("no /proc here")
    sink = PartWriter(tmp_path, "jsonl", 0, partition_by=("k",)).open()
    sink.add([{"k": k, "n": 1} for k in range(100)])
    assert len(os.listdir("/proc/self/fd")) - before <= 10
    assert len(sink.close()) == 100


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_what_cannot_be_partitioned(tmp_path: Path, format: str) -> None:
    with pytest.raises(DataError, match=r"partition 3: there is no column 'year' to partition by; .* have: a, b"):
        write(tmp_path, format, [[{"a": 1, "b": 2}]], partition_by=("year",))
    with pytest.raises(DataError, match=r"cannot partition by the column 'a' of list"):
        write(tmp_path, format, [[{"a": [1], "b": 2}]], partition_by=("a",))


def test_a_file_needs_a_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every column is a partition column"):
        write(tmp_path, "parquet", [[{"a": 1}]], partition_by=("a",))


def test_lines_that_are_no_dicts_cannot_be_partitioned(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"only dicts can be partitioned by a; got \(1, 2\)"):
        write(tmp_path, "jsonl", [[(1, 2)]], partition_by=("a",))


@pytest.mark.parametrize("by", [(), ("a",)])
def test_a_folder_that_is_not_shared_is_not_made(tmp_path: Path, by: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="file system that the notebook and all workers share"):
        write(tmp_path / "elsewhere", "jsonl", [[{"a": 1, "b": 2}]], partition_by=by)
    assert os.listdir(tmp_path) == []
