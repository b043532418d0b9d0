"""LIBSVM files, in the plain form read at once and in all others line by line."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.data.libsvm import libsvm_batches, libsvm_tables
from paibook.data.splits import file_splits, records
from paibook.errors import DataError


def read(path: Path) -> list[dict[str, Any]]:
    found = [record for batch in libsvm_batches(str(path)) for record in batch.records]
    return [{name: v.tolist() if hasattr(v, "tolist") else v for name, v in record.items()} for record in found]


def test_records_have_label_indices_and_values(tmp_path: Path) -> None:
    (tmp_path / "a.svm").write_text("+1 1:0.5 7:-2e+3\n-1 3:1\n0\n")
    assert read(tmp_path / "a.svm") == [
        {"label": 1.0, "indices": [1, 7], "values": [0.5, -2000.0]},
        {"label": -1.0, "indices": [3], "values": [1.0]},
        {"label": 0.0, "indices": [], "values": []},
    ]
    record = next(iter(libsvm_batches(str(tmp_path / "a.svm")))).records[0]
    assert record["indices"].dtype == numpy.int64
    assert record["values"].dtype == numpy.float64


def test_comments_queries_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "a.svm").write_text("# all of it\n2 qid:7 1:1 # a page\n\n1\tqid:7\t2:0.25\n0 1:3\n")
    assert read(tmp_path / "a.svm") == [
        {"label": 2.0, "qid": 7, "indices": [1], "values": [1.0]},
        {"label": 1.0, "qid": 7, "indices": [2], "values": [0.25]},
        {"label": 0.0, "indices": [1], "values": [3.0]},
    ]
    batch = next(iter(libsvm_batches(str(tmp_path / "a.svm"))))
    assert [batch.place(i).rpartition(" ")[2] for i in range(3)] == ["2", "4", "5"]
    assert next(libsvm_tables(str(tmp_path / "a.svm"))).column("qid").to_pylist() == [7, 7, None]


rows = st.lists(
    st.tuples(
        st.floats(allow_nan=False, width=32),
        st.dictionaries(st.integers(0, 10**12), st.floats(allow_nan=False), max_size=4),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(rows=rows, plain=st.booleans())
def test_both_ways_read_the_same_numbers(rows: Any, plain: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("libsvm") / "a.libsvm"
    lines = [" ".join([repr(label), *(f"{i}:{v!r}" for i, v in features.items())]) for label, features in rows]
    path.write_text("".join(line + ("\n" if plain else " # noted\n") for line in lines))
    expected = [{"label": lb, "indices": list(f), "values": list(f.values())} for lb, f in rows]
    assert read(path) == expected
    tables = [row for table in libsvm_tables(str(path)) for row in table.to_pylist()]
    assert tables == expected


@pytest.mark.parametrize(
    "bad",
    ["1 2:3:4 5", "1 2 3:4 5:", "yes 1:2", "1 -3:1", "1 a:1", "1 2:x", "1 2.5:1", "1 qid:x 2:1", "1 1+1:2", "1+ 2:3"],
)
def test_what_is_not_libsvm_names_file_and_line(tmp_path: Path, bad: str) -> None:
    (tmp_path / "a.svm").write_text(f"1 1:1\n-1 2:1\n{bad}\n1 1:1\n")
    with pytest.raises(DataError, match=r"a\.svm, line 3: not LIBSVM"):
        read(tmp_path / "a.svm")


def test_a_large_file_is_cut_anywhere(tmp_path: Path) -> None:
    (tmp_path / "a.svm").write_text("".join(f"1 {i + 1}:1\n" for i in range(5000)))
    splits = file_splits([str(tmp_path)], 2, split_bytes=5000)
    assert len(splits) > 5
    assert [int(r["indices"][0]) for split in splits for r in records(split)] == list(range(1, 5001))


def test_a_compressed_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "a.libsvm.gz").write_bytes(gzip.compress(b"1 1:1\n"))
    assert [r["label"] for split in file_splits([str(tmp_path)], 1) for r in records(split)] == [1.0]
