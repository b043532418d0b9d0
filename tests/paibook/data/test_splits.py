"""Splits of every format: each record once, in order, and errors that name file and line."""

from __future__ import annotations

import bz2
import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.data import lines
from paibook.data.splits import FileSplit, Piece, file_splits, records
from paibook.errors import DataError, PlanError


def read(splits: list[FileSplit]) -> list[Any]:
    return [record for split in splits for record in records(pickle.loads(pickle.dumps(split)))]


def places(split: FileSplit) -> list[str]:
    return [batch.place(i) for batch in split.batches() for i in range(len(batch.records))]


line_texts = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=12)


@settings(deadline=None)
@given(texts=st.lists(line_texts, max_size=30), size=st.integers(1, 200), ends=st.booleans(), block=st.integers(1, 64))
def test_any_cut_of_a_line_file_gives_each_line_once(
    texts: list[str], size: int, ends: bool, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    texts = [text.lstrip("\ufeff") for text in texts]
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    content = "\n".join(texts) + ("\n" if ends and texts else "")
    path.write_bytes(content.encode())
    expected = content.split("\n")
    if not expected[-1]:
        expected.pop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", block)
        splits = file_splits([str(path)], 2, split_bytes=size)
        assert read(splits) == expected
        found = [int(place.rpartition(" ")[2]) for split in splits for place in places(split)]
    assert found == list(range(1, len(expected) + 1))


def test_windows_newlines_and_a_byte_order_mark_are_not_part_of_records(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo")
    assert read(file_splits([str(tmp_path)], 1)) == ["one", "", "two"]


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_files_are_read_whole(tmp_path: Path, suffix: str, compress: Any) -> None:
    (tmp_path / f"a.jsonl{suffix}").write_bytes(compress(b'{"a": 1}\n{"a": 2}\n'))
    splits = file_splits([str(tmp_path)], 2, split_bytes=1)
    assert len(splits) == 1
    assert read(splits) == [{"a": 1}, {"a": 2}]


def test_many_small_files_share_splits_and_large_ones_are_cut(tmp_path: Path) -> None:
    for i in range(1000):
        (tmp_path / f"{i:04}.txt").write_text(f"{i}\n" * 200)
    splits = file_splits([str(tmp_path)], 2)
    assert 2 <= len(splits) <= 20
    assert len(read(splits)) == 200_000
    big = tmp_path / "big.txt"
    big.write_text("some words\n" * 100_000)
    assert 4 <= len(file_splits([str(big)], 2)) <= 20


def test_json_lines_skip_blank_lines_and_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('1\n\n "two" \n[3, {"x": null}]\n')
    splits = file_splits([str(tmp_path)], 1)
    assert read(splits) == [1, "two", [3, {"x": None}]]
    assert [place.rpartition(" ")[2] for place in places(splits[0])] == ["1", "3", "4"]


@pytest.mark.parametrize("bad", ['{"a": 1', '{"a": 1} {"a": 2}', "{'a': 1}", "nonsense"])
def test_malformed_json_names_file_and_line(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 0}\n' * 99 + bad + "\n" + '{"a": 0}\n' * 99)
    with pytest.raises(DataError, match=r"a\.jsonl, line 100: not one JSON value"):
        read(file_splits([str(path)], 4, split_bytes=100))


@pytest.mark.parametrize("format", ["text", "jsonl", "csv", "document"])
def test_wrong_bytes_name_file_and_line(tmp_path: Path, format: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"1\n2\n\xff\xfe\n4\n")
    with pytest.raises(DataError, match=r"a\.txt, line 3: byte 0xff is not UTF-8"):
        read(file_splits([str(path)], 1, format))


def test_csv_rows_are_dicts_by_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('name,quote\nAnn,"one, ""two""\nthree"\n\nBob,\n')
    (tmp_path / "b.tsv").write_text("name\tquote\nCid\tx,y\n")
    splits = file_splits([str(tmp_path)], 1)
    assert read(splits) == [
        {"name": "Ann", "quote": 'one, "two"\nthree'},
        {"name": "Bob", "quote": ""},
        {"name": "Cid", "quote": "x,y"},
    ]
    assert [Path(place).name for place in places(splits[0])] == ["a.csv, line 3", "a.csv, line 5", "b.tsv, line 2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", r"line 3: 1 fields where the header names 2: \['3'\]"),
        ("a,b\n1,2,3\n", r"line 2: 3 fields where the header names 2"),
        ('a,b\n"1,2\n', r"line 2: unexpected end of data"),
        ("a,a\n1,2\n", r"line 1: the column 'a' appears twice"),
    ],
)
def test_malformed_csv_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=rf"a\.csv, {message}"):
        read(file_splits([str(tmp_path)], 1))


def test_parquet_is_cut_at_row_groups(tmp_path: Path) -> None:
    rows = [{"i": i, "text": f"row {i}"} for i in range(100)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=10)
    splits = file_splits([str(tmp_path / "a.parquet")], 2, split_bytes=300)
    assert len(splits) > 2
    assert read(splits) == rows
    assert places(splits[-1])[-1].endswith("a.parquet, row 99")


def test_a_document_is_one_record(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("one\ntwo\n")
    assert read(file_splits([str(tmp_path)], 1, "document")) == [
        {"path": str(tmp_path / "a.html"), "text": "one\ntwo\n"}
    ]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.parquet"])
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"neither of these")
    with pytest.raises(DataError, match=f"cannot read .*{name}"):
        read(file_splits([str(tmp_path)], 1, split_bytes=1))


def test_a_truncated_gzip_file_is_an_error_not_fewer_records(tmp_path: Path) -> None:
    text = "".join(json.dumps({"i": i}) + "\n" for i in range(10_000)).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text)[:-5000])
    with pytest.raises(DataError, match=r"cannot read .*a\.jsonl\.gz"):
        read(file_splits([str(tmp_path)], 1))


def test_a_file_removed_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone\.txt"):
        read([FileSplit((Piece(str(tmp_path / "gone.txt"), "text"),))])


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(PlanError, match="unknown input format 'xml'; there are text"):
        file_splits(["a"], 1, "xml")


def test_splits_know_how_much_they_weigh(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"n": range(11_000)}), tmp_path / "a.parquet", row_group_size=10_000)
    (tmp_path / "a.txt").write_text("line\n" * 1000)
    large, rest = file_splits([str(tmp_path / "a.parquet")], 2, split_bytes=30_000)
    assert large.weight > 9 * rest.weight > 0
    assert [split.weight for split in file_splits([str(tmp_path / "a.txt")], 2, split_bytes=2500)] == [2500, 2500]
