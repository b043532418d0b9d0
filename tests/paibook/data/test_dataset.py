"""Datasets are read back as they were written, whole or in part."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest

from paibook.data import dataset
from paibook.data.dataset import Dataset
from paibook.data.staging import Staging
from paibook.errors import DataError, PlanError

SUFFIXES = [".parquet", ".jsonl", ".csv"]
ROWS = [{"a": n, "b": "xyz"[n % 3]} for n in range(10)]


def write(target: Path, chunks: list[list[Any]], by: tuple[str, ...] = ()) -> Dataset:
    """One task for each chunk."""
    with Staging(target, "run1", partition_by=by) as staging:
        parts = []
        for number, records in enumerate(chunks):
            sink = staging.writer(number).open()
            sink.add(records)
            parts += sink.close()
        return staging.commit(parts)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_some_columns(tmp_path: Path, suffix: str) -> None:
    written = write(tmp_path / f"out{suffix}", [ROWS[:5], ROWS[5:]])
    assert written.read().to_dict("records") == ROWS
    assert written.read(columns=["b"]).to_dict("list") == {"b": [row["b"] for row in ROWS]}
    assert list(written.read(columns=["b", "a"]).columns) == ["b", "a"]
    with pytest.raises(DataError, match=r"cannot read .*nowhere"):
        written.read(columns=["nowhere"])
    assert len(written) == 10


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("n", [0, 3, 7, 100])
def test_the_first_rows(tmp_path: Path, suffix: str, n: int) -> None:
    written = write(tmp_path / f"out{suffix}", [ROWS[:5], ROWS[5:]])
    assert written.head(n).to_dict("records") == ROWS[:n]


def test_the_first_rows_of_many_batches(tmp_path: Path) -> None:
    written = write(tmp_path / "out.parquet", [[{"a": n} for n in range(150_000)]])
    assert written.head(140_000)["a"].tolist() == list(range(140_000))


def test_head_reads_no_further_than_it_needs(tmp_path: Path) -> None:
    written = write(tmp_path / "out.jsonl", [ROWS])
    file = next(written.path.iterdir())
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:3], "this is no JSON"]))
    assert len(written.head(3)) == 3
    with pytest.raises(DataError, match="cannot read"):
        written.head(4)


def test_head_takes_no_negative_number(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="0 or more; got -1"):
        write(tmp_path / "out.csv", [ROWS]).head(-1)


def test_a_notebook_shows_the_first_rows(tmp_path: Path) -> None:
    written = write(tmp_path / "out.jsonl", [[{"a": "<b>", "n": n} for n in range(9)]])
    html = written._repr_html_()
    assert "9 rows" in html
    assert html.count("&lt;b&gt;") == dataset.HEAD
    shutil.rmtree(written.path)
    assert "the folder is not there" in written._repr_html_()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_partition_columns_come_back_with_their_types(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"year": year, "code": code, "n": n}
        for n, (year, code) in enumerate([(2024, "007"), (2023, "a/b=ç"), (None, "")])
    ]
    written = write(tmp_path / f"out{suffix}", [rows[:2], rows[2:]], by=("year", "code"))
    assert sorted(str(file.parent.relative_to(written.path)) for file in written.path.rglob("part-*")) == [
        "year=2023/code=a%2Fb%3D%C3%A7",
        "year=2024/code=007",
        "year=__HIVE_DEFAULT_PARTITION__/code=",
    ]
    found = written.read().sort_values("n")
    assert found["code"].tolist() == ["007", "a/b=ç", ""]
    assert found["year"].tolist()[:2] == [2024, 2023]
    assert found["year"].isna().tolist() == [False, False, True]
    assert sorted(written.read(columns=["code"])["code"]) == ["", "007", "a/b=ç"]
    assert sorted(written.head(10)["code"]) == ["", "007", "a/b=ç"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_dates_and_bools_as_partitions(tmp_path: Path, suffix: str) -> None:
    day = datetime.date(2024, 2, 29)
    written = write(tmp_path / f"out{suffix}", [[{"day": day, "good": True, "n": 1}]], by=("day", "good"))
    assert (written.path / "day=2024-02-29" / "good=true").is_dir()
    assert written.read().to_dict("records") == [{"n": 1, "day": day, "good": True}]


def test_other_readers_see_the_partitions(tmp_path: Path) -> None:
    written = write(tmp_path / "out.parquet", [[{"year": 2024, "n": 1}, {"year": 2023, "n": 2}]], by=("year",))
    found = pandas.read_parquet(written.path)
    assert dict(zip(found["year"].astype(int), found["n"], strict=True)) == {2024: 1, 2023: 2}


def test_types_are_guessed_where_only_the_folder_is_known(tmp_path: Path) -> None:
    rows = [{"year": 2024, "city": "A", "n": 1}, {"year": 2023, "city": "2", "n": 2}]
    written = write(tmp_path / "out.jsonl", [rows], by=("year", "city"))
    found = Dataset(written.path, 2, 0).read().sort_values("n")
    assert found[["year", "city"]].to_dict("list") == {"year": [2024, 2023], "city": ["A", "2"]}


def test_a_column_of_json_is_left_as_it_is(tmp_path: Path) -> None:
    written = write(tmp_path / "out.jsonl", [[{"a": [1, "x"], "b": "line\u2028separator"}]])
    assert [json.loads(line) for line in next(written.path.iterdir()).read_text().split("\n")[:-1]] == [
        {"a": [1, "x"], "b": "line\u2028separator"}
    ]
    assert written.read()["b"].tolist() == ["line\u2028separator"]


def test_parts_of_different_types_are_read_together(tmp_path: Path) -> None:
    written = write(tmp_path / "out.parquet", [[{"a": 1}], [{"a": 2.5}]])
    assert written.read()["a"].tolist() == [1.0, 2.5]
    assert pyarrow.Table.from_pandas(written.head()).schema.field("a").type == pyarrow.float64()
