"""Tables straight from splits: the rows of ``batches``, of the same types in every split."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from paibook.data.arrow_tables import gathered
from paibook.data.splits import FileSplit, file_splits, records
from paibook.errors import DataError


def tables(splits: list[FileSplit], columns: list[str] | None = None) -> list[pyarrow.Table]:
    return [table for split in pickle.loads(pickle.dumps(splits)) for table in split.tables(columns)]


def rows(splits: list[FileSplit], columns: list[str] | None = None) -> list[dict[str, Any]]:
    return [row for table in tables(splits, columns) for row in table.to_pylist()]


def test_parquet_reads_the_columns_asked_for(tmp_path: Path) -> None:
    content = pyarrow.table({"a": range(1000), "b": [str(i) for i in range(1000)], "c": [0.5] * 1000})
    pyarrow.parquet.write_table(content, tmp_path / "a.parquet", row_group_size=100)
    splits = file_splits([str(tmp_path)], 2, split_bytes=2000)
    assert len(splits) > 3
    assert pyarrow.concat_tables(tables(splits)).equals(content)
    assert pyarrow.concat_tables(tables(splits, ["c", "a"])).equals(content.select(["c", "a"]))
    with pytest.raises(DataError, match=r"a\.parquet has no column 'd'; it has: a, b, c"):
        tables(splits, ["d"])


def test_csv_has_one_type_per_column_in_all_pieces_and_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,x,note\n" + "".join(f'{i},{i},"a\nb"\n' for i in range(1000)))
    (tmp_path / "b.csv").write_text("id,x,late\n" + "".join(f"{i},{i}.5,\n" for i in range(1000)))
    splits = file_splits([str(tmp_path)], 2, split_bytes=3000, typed=True)
    assert len(splits) > 5
    found = tables(splits)
    expected = pyarrow.schema({"id": "int64", "x": "float64", "note": "string", "late": "string"})
    assert all(table.schema.equals(expected) for table in found)
    whole = pyarrow.concat_tables(found)
    assert whole["id"].to_pylist() == [*range(1000)] * 2
    assert whole["x"].to_pylist() == [*map(float, range(1000)), *(i + 0.5 for i in range(1000))]
    assert whole["note"].to_pylist() == ["a\nb"] * 1000 + [None] * 1000
    assert tables(splits, ["x"])[0].column_names == ["x"]


def test_a_csv_column_of_numbers_and_texts_is_text_if_some_of_it_tells(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n" + "1\n" * 3000 + "x\n" * 3000)
    assert {type(row["id"]) for row in rows(file_splits([str(tmp_path)], 2, split_bytes=500, typed=True))} == {str}


def test_a_csv_value_that_does_not_fit_is_an_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n" + "123456789012345678\n" * 1_000_000 + "x\n")
    with pytest.raises(DataError, match=r"a\.csv: a row does not fit the columns' types.*invalid value 'x'"):
        rows(file_splits([str(tmp_path)], 1, split_bytes=1 << 30))


def test_a_malformed_csv_row_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(DataError, match=r"a\.csv, line 3: 1 fields where the header names 2"):
        rows(file_splits([str(tmp_path)], 1))


@pytest.mark.parametrize("content", ["", "a,b\n", "\n\na,b\n"])
def test_a_csv_file_without_rows(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert rows(file_splits([str(tmp_path)], 1, typed=True)) == []


def test_json_lines_have_one_type_per_column_in_all_pieces(tmp_path: Path) -> None:
    expected = [{"id": i, "x": i if i < 700 else i + 0.5, "at": "2024-01-01", "in": {"t": [i]}} for i in range(1000)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in expected))
    splits = file_splits([str(tmp_path)], 2, split_bytes=3000, typed=True)
    found = tables(splits)
    assert len({str(table.schema) for table in found}) == 1
    assert [row for table in found for row in table.to_pylist()] == expected
    assert found[0].schema.field("x").type == pyarrow.float64()
    assert found[0].schema.field("at").type == pyarrow.string()
    assert rows(splits, ["id"]) == [{"id": i} for i in range(1000)]


def test_json_that_arrow_cannot_read_goes_by_records(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1\n\n2\n")
    assert rows(file_splits([str(tmp_path)], 1)) == [{"value": 1}, {"value": 2}]


def test_malformed_json_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: not one JSON value"):
        rows(file_splits([str(tmp_path)], 1, typed=True))


def test_a_json_column_of_numbers_and_texts_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": "x"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: the column 'a' has no common type"):
        rows(file_splits([str(tmp_path)], 1))


def test_text_is_the_column_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\r\nzwölf\nend".encode())
    splits = file_splits([str(tmp_path)], 1)
    assert rows(splits) == [{"line": text} for text in records(splits[0])]
    assert [row["line"] for row in rows(splits)] == ["one", "", "zwölf", "end"]
    (tmp_path / "a.txt").write_bytes(b"one\n\xff\n")
    with pytest.raises(DataError, match=r"a\.txt, line 2: byte 0xff is not UTF-8"):
        rows(file_splits([str(tmp_path)], 1))


@pytest.mark.parametrize("size", [100, 10_000])
def test_any_line_file_gives_the_same_as_records(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {i}" * (i % 7) + "\n" for i in range(500)))
    splits = file_splits([str(tmp_path)], 2, split_bytes=size)
    assert [row["line"] for row in rows(splits)] == [text for split in splits for text in records(split)]


def test_compressed_documents_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a\n1\n"))
    (tmp_path / "b.bin").write_bytes(b"\xff")
    assert rows(file_splits([str(tmp_path / "a.csv.gz")], 1, typed=True)) == [{"a": 1}]
    assert rows(file_splits([str(tmp_path / "b.bin")], 1)) == [{"path": str(tmp_path / "b.bin"), "bytes": b"\xff"}]
    document = rows(file_splits([str(tmp_path / "a.csv.gz")], 1, "document"))
    assert document == [{"path": str(tmp_path / "a.csv.gz"), "text": "a\n1\n"}]


def test_small_files_are_joined_to_larger_tables(tmp_path: Path) -> None:
    for i in range(50):
        (tmp_path / f"{i:02}.csv").write_text(f"a\n{i}\n")
    (table,) = tables(file_splits([str(tmp_path)], 1, typed=True))
    assert table["a"].to_pylist() == list(range(50))
    halves = [pyarrow.table({"a": [1]}), pyarrow.table({"a": [2]}), pyarrow.table({"b": [1]})]
    assert [found.num_rows for found in gathered(halves)] == [2, 1]
