"""Variables: a notebook's own lists, frames, arrays and iterables as input."""

from __future__ import annotations

import pickle
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import cloudpickle
import numpy
import pyarrow

from paibook.data.arrow_tables import BYTES, ROWS, selected
from paibook.data.batch import Batch
from paibook.data.frames import table as table_of
from paibook.data.splits import SPLITS_PER_SLOT
from paibook.data.tables import rows_of
from paibook.errors import DataError


@dataclass(frozen=True, slots=True)
class VariableSplit:
    """Neighbouring items of a variable.

    Attributes:
        name: The variable.
        first: Index of the first item.
        content: The pickled items: a list, or an array, Arrow table or pandas DataFrame whose rows are the items.
    """

    name: str
    first: int
    content: bytes

    def batches(self) -> Iterator[Batch]:
        """The items, as one batch."""
        yield from _batches(self.name, self.first, pickle.loads(self.content))

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
        """The items as tables, or some columns of them: frames and tables as they are, other items as in ``frames``.

        Raises:
            DataError: Items of different types, or a column that is not there.
        """
        yield from _tables(self.name, pickle.loads(self.content), columns)

    def schema(self) -> pyarrow.Schema:
        """The columns of the items as a table.

        Raises:
            DataError: Items of different types.
        """
        return _table(self.name, pickle.loads(self.content)).schema

    def saved(self, folder: Path) -> SavedSplit:
        """Write the items to a new file in a folder that the workers share.

        Raises:
            DataError: The folder cannot be written to.
        """
        path = folder / f"{self.name}-{self.first}-{uuid.uuid4().hex[:12]}.pickle"
        try:
            path.write_bytes(self.content)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise DataError(f"cannot keep the input variable {self.name!r} in {folder}: {error}") from error
        return SavedSplit(self.name, self.first, path)


@dataclass(frozen=True, slots=True)
class SavedSplit:
    """Neighbouring items of a variable, in a file of their own.

    Attributes:
        name: The variable.
        first: Index of the first item.
        path: The file.
    """

    name: str
    first: int
    path: Path

    def batches(self) -> Iterator[Batch]:
        """The items, as one batch.

        Raises:
            DataError: The file is gone.
        """
        yield from self._loaded().batches()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
        """As ``VariableSplit.tables``.

        Raises:
            DataError: As there; the file is gone.
        """
        yield from self._loaded().tables(columns)

    def schema(self) -> pyarrow.Schema:
        """As ``VariableSplit.schema``.

        Raises:
            DataError: As there; the file is gone.
        """
        return self._loaded().schema()

    def _loaded(self) -> VariableSplit:
        try:
            return VariableSplit(self.name, self.first, self.path.read_bytes())
        except OSError as error:
            raise DataError(f"cannot read the input variable {self.name!r} back from {self.path}: {error}") from error


@dataclass(frozen=True, slots=True)
class PendingSplit:
    """A partition of a collection that is still being computed.

    Attributes:
        name: The variable.
        number: The partition.
        pending: What the cluster gave for it, to be handed to the task beside the split: it is not pickled.
    """

    name: str
    number: int
    pending: Any = None

    def with_value(self, value: Any) -> ValueSplit:
        """The split, once the partition is there.

        Raises:
            DataError: It is no list, frame, table or array, nor can it be iterated.
        """
        name = f"{self.name}, partition {self.number}"
        return ValueSplit(name, items_of(name, value))

    def __reduce__(self) -> tuple[type[PendingSplit], tuple[str, int]]:
        return PendingSplit, (self.name, self.number)


@dataclass(frozen=True, slots=True)
class ValueSplit:
    """Items that are here already.

    Attributes:
        name: Of the variable, and which part of it.
        items: A list, or an array, Arrow table or pandas DataFrame whose rows are the items.
    """

    name: str
    items: Any

    def batches(self) -> Iterator[Batch]:
        """The items, as one batch."""
        yield from _batches(self.name, 0, self.items)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
        """As ``VariableSplit.tables``."""
        yield from _tables(self.name, self.items, columns)


def variable_splits(name: str, value: Any, slots: int, splits: int | None = None) -> list[VariableSplit]:
    """Cut a variable's items into splits, a few for each slot.

    Args:
        name: What errors call it.
        value: Any iterable, read to its end at once, generators too; the rows of a pandas or polars DataFrame or an
            Arrow table become dicts, those of a NumPy array stay arrays.
        slots: Tasks that run at once.
        splits: Their number; chosen from the slots where None.

    Raises:
        DataError: Not iterable, iterable only by mistake (str, bytes, dict), or items that cannot be pickled.
    """
    items = items_of(name, value)
    count = len(items)
    size = max(1, ceil(count / (splits or SPLITS_PER_SLOT * max(1, slots))))
    # A frame without rows still has columns.
    starts = range(0, count if isinstance(items, list) else max(1, count), size)
    return [VariableSplit(name, i, _pickled(name, i, _slice(items, i, i + size))) for i in starts]


def pending_splits(name: str, pending: Sequence[Any]) -> list[PendingSplit]:
    """The splits of a collection whose partitions the cluster computes."""
    return [PendingSplit(name, number, one) for number, one in enumerate(pending)]


def is_collection(value: Any) -> bool:
    """Whether a value is a Dask collection (a bag, DataFrame or array), or a list of delayed values, to be computed."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(callable(getattr(item, "__dask_graph__", None)) for item in value)
    return callable(getattr(value, "__dask_graph__", None)) and callable(getattr(value, "to_delayed", None))


def items_of(name: str, value: Any) -> Any:
    """The items as a list, or the array, frame or table whose rows they are.

    Raises:
        DataError: There are none to be had.
    """
    if isinstance(value, (str, bytes, bytearray)):
        raise DataError(f"the input variable {name!r} is {type(value).__name__}; a list of records is needed")
    if isinstance(value, Mapping):
        raise DataError(f"the input variable {name!r} is a {type(value).__name__}; pass list({name}.items()) instead")
    if isinstance(value, pyarrow.RecordBatch):
        return pyarrow.Table.from_batches([value])
    if isinstance(value, pyarrow.RecordBatchReader):
        return value.read_all()
    # A value can only be a frame of a library that is already imported.
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(value, polars.DataFrame):
        return value.to_arrow()
    if polars is not None and isinstance(value, polars.LazyFrame):
        raise DataError(f"the input variable {name!r} is a LazyFrame; pass {name}.collect() instead")
    if isinstance(value, (list, pyarrow.Table)) or _is_pandas(value) or _is_array(value):
        return value
    if not isinstance(value, Iterable) and not hasattr(value, "__getitem__"):
        raise DataError(f"the input variable {name!r} cannot be iterated: it is {type(value).__name__}")
    try:
        return list(value)
    except TypeError as error:  # an array of no dimensions, say
        raise DataError(f"the input variable {name!r} cannot be iterated: {error}") from error


def _is_pandas(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _is_array(value: Any) -> bool:
    return isinstance(value, numpy.ndarray) and value.ndim > 0


def _slice(items: Any, start: int, stop: int) -> Any:
    if isinstance(items, pyarrow.Table):
        return _cut_out(items.slice(start, stop - start).combine_chunks())
    return items.iloc[start:stop] if _is_pandas(items) else items[start:stop]


def _cut_out(rows: pyarrow.Table) -> pyarrow.Table:
    """Rows in memory of their own: a slice would be pickled with all of the table that it is of."""
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return pyarrow.ipc.open_stream(sink.getvalue()).read_all()


def _batches(name: str, first: int, items: Any) -> Iterator[Batch]:
    yield Batch(_records(items), lambda index: f"{name}, item {first + index}")


def _records(items: Any) -> list[Any]:
    if isinstance(items, list):
        return items
    if isinstance(items, pyarrow.Table):
        return rows_of(items)
    if isinstance(items, numpy.ndarray):
        # Python's own numbers and texts; of points in time NumPy would make bare numbers.
        return items.tolist() if items.ndim == 1 and items.dtype.kind not in "mMV" else list(items)
    records: list[Any] = items.to_dict("records")
    return records


def _tables(name: str, items: Any, columns: Sequence[str] | None) -> Iterator[pyarrow.Table]:
    whole = _table(name, items)
    rows = max(1, min(ROWS, whole.num_rows * BYTES // max(1, whole.nbytes)))
    parts = (whole.slice(start, rows) for start in range(0, whole.num_rows, rows))
    return selected(parts, columns, name)


def _table(name: str, items: Any) -> pyarrow.Table:
    if isinstance(items, pyarrow.Table):
        return items
    place = f"the input variable {name!r}"
    if isinstance(items, list):
        return table_of(items, place)
    try:
        if isinstance(items, numpy.ndarray):
            return _table_of_array(items)
        return pyarrow.Table.from_pandas(items, preserve_index=False).replace_schema_metadata()
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{place} does not fit into a table: {error}; hold values of one type per column") from error


def _table_of_array(items: Any) -> pyarrow.Table:
    """One column ``value`` of a vector, columns ``0``, ``1``, ... of a matrix; lists of anything deeper."""
    if items.ndim == 2:
        columns = {str(i): pyarrow.array(numpy.ascontiguousarray(items[:, i])) for i in range(items.shape[1])}
        return pyarrow.table(columns)
    return pyarrow.table({"value": pyarrow.array(items if items.ndim == 1 else items.tolist())})


def _pickled(name: str, first: int, items: Any) -> bytes:
    try:
        return cloudpickle.dumps(items)
    except Exception as error:  # pickling runs the items' own code, which may raise anything
        raise DataError(
            f"the input variable {name!r} has items (from item {first} on) that cannot be sent to workers: {error}"
        ) from error
