"""Answers are told apart whatever the order of their rows, and every side's file is read."""

import json
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet

from benchmarks import answers

COLUMNS = ("word", "id", "weight")


def corpus(folder: Path) -> list[Path]:
    documents = [{"id": "a", "text": "One two, two"}, {"id": "b", "text": "two three"}]
    file = folder / "documents.jsonl"
    file.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return [file]


def written(folder: Path, rows: list[tuple[str, str, float]]) -> Path:
    folder.mkdir()
    columns = [list(column) for column in zip(*rows, strict=True)]
    for number in (0, 1):
        part = pyarrow.table([column[number::2] for column in columns], names=list(COLUMNS))
        pyarrow.parquet.write_table(part, folder / f"part-{number}.parquet")
    return folder


def test_the_same_rows_in_another_order_agree_and_others_do_not(tmp_path: Path) -> None:
    documents, right = answers.weights(corpus(tmp_path))
    assert (documents, right.rows) == (2, 4)
    ln2 = float(numpy.log(2))
    rows = [("three", "b", ln2), ("two", "b", 0.0), ("one", "a", ln2), ("two", "a", 0.0)]
    assert answers.read(written(tmp_path / "right", rows), COLUMNS).agrees(right)
    assert not answers.read(written(tmp_path / "fewer", rows[:3]), COLUMNS).agrees(right)
    swapped = [("three", "a", ln2), ("two", "b", 0.0), ("one", "b", ln2), ("two", "a", 0.0)]
    assert not answers.read(written(tmp_path / "swapped", swapped), COLUMNS).agrees(right)
    heavier = [(word, id, weight * 1.001) for word, id, weight in rows]
    assert not answers.read(written(tmp_path / "heavier", heavier), COLUMNS).agrees(right)


def test_lines_of_json_are_an_answer_too(tmp_path: Path) -> None:
    _, right = answers.weights(corpus(tmp_path))
    ln2 = float(numpy.log(2))
    rows = [("one", "a", ln2), ("two", "a", 0.0), ("two", "b", 0.0), ("three", "b", ln2)]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part-00000").write_text(
        "".join(f"{json.dumps(word)}\t{json.dumps([id, weight])}\n" for word, id, weight in rows)
    )
    assert answers.read(tmp_path / "out", COLUMNS).agrees(right)


def test_sums_of_whole_numbers_and_of_texts(tmp_path: Path) -> None:
    table = pyarrow.table({"key": [1, 2, 1], "value": [10, 20, 30]})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    (tmp_path / "out").mkdir()
    sums = pyarrow.table({"value": [20, 40], "key": [2, 1]})
    pyarrow.parquet.write_table(sums, tmp_path / "out" / "part.parquet")
    right = answers.integer_sums([tmp_path / "in.parquet"])
    assert answers.read(tmp_path / "out", ("key", "value")).agrees(right)
    (tmp_path / "in.tsv").write_text("b\t1\na\t2\nb\t3\n")
    assert answers.text_sums([tmp_path / "in.tsv"]).rows == 2
