"""LIBSVM files: sparse rows such as ``+1 3:0.5 17:1 # a comment``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy
import pyarrow
import pyarrow.compute

from paibook.data.batch import Batch
from paibook.data.lines import END, decoded, line_place, stored_blocks
from paibook.errors import DataError

# What is parsed at once for a whole block: neither comments nor qid nor blank lines. A plus sign stands before a number
# or in its exponent, so that it may be left out.
_NUMBER = rb"\+?+[^\s:#+]++(?:(?<=[eE])\+[0-9]++)?+"
_PLAIN = re.compile(rb"(?:" + _NUMBER + rb"(?: ++[0-9]{1,15}+:" + _NUMBER + rb")*+ *+\r?+\n)*+")
_PAIR = re.compile(r"([0-9]+):([^:]+)")
_COLON_TO_SPACE = bytes.maketrans(b":", b" ")
_LARGEST = 2**53


def libsvm_batches(url: str, start: int = 0, stop: int = END) -> Iterator[Batch]:
    """Rows that start in a range of bytes as dicts; blank lines and comments are skipped.

    A record is ``{"label": float, "indices": int64 array, "values": float64 array}``, and ``"qid": int`` where the line
    has one. Indices are as in the file, where they commonly count from 1; in any order.

    Raises:
        DataError: A line that is not LIBSVM, or bytes that are not UTF-8; names the file and the line.
    """
    for position, block in stored_blocks(url, start, stop):
        rows = _rows(block, url, position)

        def place(index: int, position: int = position, numbers: Any = rows.lines) -> str:
            return line_place(url, position, index if numbers is None else numbers[index])

        yield Batch(rows.records(), place)


def libsvm_tables(url: str, start: int = 0, stop: int = END, size: int | None = None) -> Iterator[pyarrow.Table]:
    """The same as tables: ``label``, the lists ``indices`` and ``values``, and ``qid`` where it is used."""
    for position, block in stored_blocks(url, start, stop, size):
        yield _rows(block, url, position).table()


class _Rows:
    """Sparse rows one after the other.

    Args:
        labels: One for each row.
        offsets: Where each row's features begin, and the last one's end.
        indices, values: All rows' features.
        qids: One for each row, None where a row has none; None where no row has.
        lines: Index of each row's line; None where that is the row's own.
    """

    def __init__(self, labels: Any, offsets: Any, indices: Any, values: Any, qids: Any, lines: Any) -> None:
        self.labels, self.offsets, self.indices, self.values = labels, offsets, indices, values
        self.qids, self.lines = qids, lines

    def records(self) -> list[dict[str, Any]]:
        edges = self.offsets.tolist()
        indices, values = self.indices, self.values
        records: list[dict[str, Any]] = [
            {"label": label, "indices": indices[start:stop], "values": values[start:stop]}
            for label, start, stop in zip(self.labels.tolist(), edges, edges[1:], strict=False)
        ]
        for record, qid in zip(records, self.qids or (), strict=False):
            if qid is not None:
                record["qid"] = qid
        return records

    def table(self) -> pyarrow.Table:
        offsets = pyarrow.array(self.offsets, pyarrow.int32())
        columns = {
            "label": pyarrow.array(self.labels),
            "indices": pyarrow.ListArray.from_arrays(offsets, pyarrow.array(self.indices)),
            "values": pyarrow.ListArray.from_arrays(offsets, pyarrow.array(self.values)),
        }
        if self.qids is not None:
            columns["qid"] = pyarrow.array(self.qids, pyarrow.int64())
        return pyarrow.table(columns)


def _rows(block: bytes, url: str, position: int) -> _Rows:
    block = block if block.endswith(b"\n") else block + b"\n"
    matched = _PLAIN.match(block)
    rows = _at_once(block) if matched is not None and matched.end() == len(block) else None
    return rows or _one_by_one(decoded(block, url, position), url, position)


def _at_once(block: bytes) -> _Rows | None:
    """All rows of a block in the plain form; None where a number is none."""
    codes = numpy.frombuffer(block, numpy.uint8)
    newlines, colons = numpy.flatnonzero(codes == ord("\n")), numpy.flatnonzero(codes == ord(":"))
    offsets = numpy.concatenate([[0], numpy.searchsorted(colons, newlines)])
    fields = block.translate(_COLON_TO_SPACE, b"+")
    try:
        words = pyarrow.compute.ascii_split_whitespace(pyarrow.array([fields.strip().decode("ascii")]))
        numbers = words.values.cast(pyarrow.float64()).to_numpy()
    except (pyarrow.ArrowInvalid, ValueError):
        return None
    if len(numbers) != len(newlines) + 2 * len(colons):
        return None
    first = 2 * offsets[:-1] + numpy.arange(len(newlines))  # where each row's label stands
    features = numpy.delete(numbers, first)
    return _Rows(numbers[first], offsets, features[::2].astype(numpy.int64), features[1::2].copy(), None, None)


def _one_by_one(text: str, url: str, position: int) -> _Rows:
    labels: list[float] = []
    qids: list[int | None] = []
    indices: list[int] = []
    values: list[float] = []
    offsets, lines = [0], []
    for number, line in enumerate(text.split("\n")):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        try:
            labels.append(float(fields[0]))
            qids.append(_qid(fields))
            for text_of_pair in fields[1:]:
                index, value = _pair(text_of_pair)
                indices.append(index)
                values.append(value)
        except ValueError as error:
            raise DataError(
                f"{line_place(url, position, number)}: not LIBSVM ({error}); a line is LABEL INDEX:VALUE ..."
            ) from error
        offsets.append(len(indices))
        lines.append(number)
    return _Rows(
        numpy.array(labels, numpy.float64),
        numpy.array(offsets, numpy.int64),
        numpy.array(indices, numpy.int64),
        numpy.array(values, numpy.float64),
        qids if any(qid is not None for qid in qids) else None,
        lines,
    )


def _qid(fields: list[str]) -> int | None:
    """Takes the query's number out of a line's fields."""
    if len(fields) > 1 and fields[1].startswith("qid:"):
        return int(fields.pop(1).removeprefix("qid:"))
    return None


def _pair(text: str) -> tuple[int, float]:
    match = _PAIR.fullmatch(text)
    if match is None or int(match[1]) >= _LARGEST:
        raise ValueError(f"{text!r:.40} is not INDEX:VALUE")
    return int(match[1]), float(match[2])
