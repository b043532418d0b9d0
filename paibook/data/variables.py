"""Variables: a notebook's own lists, frames and iterables as input."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import cloudpickle
import pyarrow

from paibook.data.batch import Batch
from paibook.data.splits import SPLITS_PER_SLOT
from paibook.data.tables import rows_of
from paibook.errors import DataError


@dataclass(frozen=True, slots=True)
class VariableSplit:
    """Neighbouring items of a variable.

    Attributes:
        name: The variable.
        first: Index of the first item.
        content: The pickled items: a list, or an Arrow table or pandas DataFrame whose rows are the items.
    """

    name: str
    first: int
    content: bytes

    def batches(self) -> Iterator[Batch]:
        """The items, as one batch."""
        items = pickle.loads(self.content)
        yield Batch(_records(items), lambda index: f"{self.name}, item {self.first + index}")


def variable_splits(name: str, value: Any, slots: int, splits: int | None = None) -> list[VariableSplit]:
    """Cut a variable's items into splits, a few for each slot.

    Args:
        name: What errors call it.
        value: Any iterable; the rows of a pandas or polars DataFrame or an Arrow table become dicts.
        slots: Tasks that run at once.
        splits: Their number; chosen from the slots where None.

    Raises:
        DataError: Not iterable, iterable only by mistake (str, bytes, dict), or items that cannot be pickled.
    """
    items = _items(name, value)
    count = len(items)
    size = max(1, ceil(count / (splits or SPLITS_PER_SLOT * max(1, slots))))
    starts = range(0, count, size)
    return [VariableSplit(name, i, _pickled(name, i, _slice(items, i, i + size))) for i in starts]


def _items(name: str, value: Any) -> Any:
    """The items as a list, or the frame or table whose rows they are."""
    if isinstance(value, (str, bytes, bytearray)):
        raise DataError(f"the input variable {name!r} is {type(value).__name__}; a list of records is needed")
    if isinstance(value, Mapping):
        raise DataError(f"the input variable {name!r} is a {type(value).__name__}; pass list({name}.items()) instead")
    # A value can only be a frame of a library that is already imported.
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(value, polars.DataFrame):
        return value.to_arrow()
    if isinstance(value, (list, pyarrow.Table)) or _is_pandas(value):
        return value
    if not isinstance(value, Iterable) and not hasattr(value, "__getitem__"):
        raise DataError(f"the input variable {name!r} cannot be iterated: it is {type(value).__name__}")
    return list(value)


def _is_pandas(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _slice(items: Any, start: int, stop: int) -> Any:
    if isinstance(items, pyarrow.Table):
        return items.slice(start, stop - start).combine_chunks()
    return items.iloc[start:stop] if _is_pandas(items) else items[start:stop]


def _records(items: Any) -> list[Any]:
    if isinstance(items, list):
        return items
    if isinstance(items, pyarrow.Table):
        return rows_of(items)
    records: list[Any] = items.to_dict("records")
    return records


def _pickled(name: str, first: int, items: Any) -> bytes:
    try:
        return cloudpickle.dumps(items)
    except Exception as error:  # pickling runs the items' own code, which may raise anything
        raise DataError(
            f"the input variable {name!r} has items (from item {first} on) that cannot be sent to workers: {error}"
        ) from error
