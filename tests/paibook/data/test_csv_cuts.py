"""CSV files cut between rows: never within quotes, whatever the file holds."""

from __future__ import annotations

import csv
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paibook.data import csv_cuts
from paibook.data.csv_cuts import record_borders
from paibook.data.splits import FileSplit, file_splits, records
from paibook.errors import DataError


def borders_by_hand(content: bytes) -> list[int]:
    """Where rows begin, character by character, as the csv module reads."""
    state, found = "start", []
    for place, code in enumerate(content, 1):
        char = chr(code)
        if state == "quoted":
            state = "quote" if char == '"' else "quoted"
        elif char == '"' and state in ("start", "quote"):
            state = "quoted"
        elif char in ",\r\n":
            state = "start"
            found += [place] * (char == "\n")
        else:
            state = "plain"
    return found


@settings(deadline=None, max_examples=300)
@given(
    content=st.lists(st.sampled_from([b'"', b'"', b",", b"\n", b"\r", b" ", b"a"]), max_size=40).map(b"".join),
    targets=st.sets(st.integers(1, 45), min_size=1, max_size=5).map(sorted),
    chunk=st.integers(1, 12),
)
@example(content=b'a,5" x\n"b\nc",d\n', targets=[1, 9], chunk=3)
def test_borders_are_those_of_a_reader(content: bytes, targets: list[int], chunk: int) -> None:
    rows = borders_by_hand(content)
    expected: list[int] = []
    for target in targets:
        border = next((row for row in rows if row >= target), None)
        if border is not None and (not expected or target > expected[-1]):
            expected.append(border)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_cuts, "CHUNK", chunk)
        assert record_borders(io.BytesIO(content), targets) == expected


fields = st.text(st.sampled_from(list('ab"\n\r, é')), max_size=8)


@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(st.tuples(fields, fields.map(lambda text: text or "x")), max_size=30),
    size=st.integers(1, 60),
    ending=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
)
def test_any_cut_gives_each_row_once(
    rows: list[tuple[str, str]], size: int, ending: str, mark: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8-sig" if mark else "utf-8") as file:
        # By itself the writer does not quote a bare carriage return, which ends a row.
        quoting = csv.QUOTE_ALL if ending == "\n" else csv.QUOTE_MINIMAL
        csv.writer(file, lineterminator=ending, quoting=quoting).writerows([("one", 'the "other"'), *rows])
    splits = file_splits([str(path)], 2, split_bytes=size)
    found = [record for split in splits for record in records(split)]
    assert found == [{"one": one, 'the "other"': other} for one, other in rows]


def quoted_lines(path: Path, rows: int) -> list[dict[str, str]]:
    expected = [{"id": str(i), "text": f'row {i}\nsays "hello",\nand goes'} for i in range(rows)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"])
        writer.writeheader()
        writer.writerows(expected)
    return expected


def read(splits: list[FileSplit]) -> list[Any]:
    return [record for split in splits for record in records(pickle.loads(pickle.dumps(split)))]


def test_a_large_file_uses_all_workers_and_places_are_right(tmp_path: Path) -> None:
    expected = quoted_lines(tmp_path / "a.csv", 20_000)
    splits = file_splits([str(tmp_path)], 2)
    assert 8 <= len(splits) <= 9
    assert read(splits) == expected
    places = [batch.place(i) for batch in splits[3].batches() for i in (0, len(batch.records) - 1)]
    first = next(iter(splits[3].batches())).records[0]
    assert places[0] == f"{tmp_path}/a.csv, line {1 + 3 * (int(first['id']) + 1)}"


def test_tab_separated_files_are_cut_too(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a\tb\n" + '1\t"x\ny"\n' * 100 + '2,"\tz\n' * 100)
    splits = file_splits([str(tmp_path)], 2, split_bytes=100)
    assert len(splits) > 5
    assert read(splits) == [{"a": "1", "b": "x\ny"}] * 100 + [{"a": '2,"', "b": "z"}] * 100


def test_a_broken_row_in_a_later_piece_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * 500 + "3\n" + "1,2\n" * 500)
    splits = file_splits([str(tmp_path)], 2, split_bytes=300)
    with pytest.raises(DataError, match=r"a\.csv, line 502: 1 fields where the header names 2"):
        read(splits)


def test_a_quote_that_never_closes_is_an_error_however_the_file_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * 500 + '"3,4\n' + "1,2\n" * 500)
    with pytest.raises(DataError, match=r"a\.csv, line 1002: unexpected end of data"):
        read(file_splits([str(tmp_path)], 2, split_bytes=300))
