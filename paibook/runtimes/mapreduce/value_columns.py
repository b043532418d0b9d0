"""Value columns: the values of many pairs, number by number and text by text, while they wait for the shuffle.

Columns are cut, ordered and packed without a Python object for each value. What has no column (dicts, mixed types,
whole numbers beyond 64 bits) stays a list of objects. Packing gives what ``packing.pack`` would give of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy
import pyarrow

from paibook.runtimes.mapreduce.codes import Codes
from paibook.runtimes.mapreduce.memory import size_of_items
from paibook.runtimes.mapreduce.packing import columns_of, joined_texts, narrow

_NUMBERS = {int: numpy.int64, float: numpy.float64}
_COLUMNS = (int, float, str)
FEW, REPEATED = 1024, 4  # different texts that are few in any case, and how often on average more of them come again
_INT = 32  # bytes of a whole number as a Python object
_TEXT = 56  # of a text, beside its characters
Order = numpy.ndarray[Any, Any]


class Numbers:
    """A column of whole numbers of 64 bits, or of floats.

    Args:
        kind: ``int`` or ``float``.
    """

    def __init__(self, kind: type) -> None:
        self._type = _NUMBERS[kind]
        self._chunks: list[Order] = []

    def add(self, values: Sequence[Any]) -> None:
        """Append values of the column's kind.

        Raises:
            OverflowError: One needs more than 64 bits.
        """
        self._chunks.append(numpy.fromiter(values, self._type, len(values)))

    def take_back(self) -> None:
        """Forget what was added last."""
        self._chunks.pop()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(chunk.nbytes for chunk in self._chunks)

    def object_bytes(self) -> int:
        """Bytes that all of them take as Python objects, roughly."""
        return _INT * sum(map(len, self._chunks))

    def ordered(self, order: Order) -> NumberColumn:
        """The whole column in another order."""
        return NumberColumn(_joined(self._chunks)[order])


class NumberColumn:
    """Numbers in the order of their keys."""

    def __init__(self, numbers: Order) -> None:
        self._numbers = numbers

    def values(self, start: int, stop: int) -> list[Any]:
        """Some of them, as Python objects."""
        values: list[Any] = self._numbers[start:stop].tolist()
        return values

    def packed(self, start: int, stop: int) -> tuple[Any, ...]:
        """Some of them, packed."""
        some = self._numbers[start:stop]
        if some.dtype == numpy.float64:
            return ("numbers", "<f8", some.tobytes())
        if some.min() == some.max():
            return ("constant", int(some[0]), len(some))
        return ("numbers", *narrow(some))


class Texts:
    """A column of texts: numbers of different ones while these are few, else the texts themselves."""

    def __init__(self) -> None:
        self._codes: Codes | None = Codes()
        self._chunks: list[Any] = []  # of numbers, or of texts
        self._rows = 0

    def add(self, values: Sequence[str]) -> None:
        """Append texts.

        Raises:
            UnicodeEncodeError: One holds half a surrogate pair, and there are too many different ones to number.
        """
        if self._codes is None:
            self._chunks.append(_texts(values))
        else:
            self._chunks.append(self._codes.of(values))
            if len(self._codes) > max(FEW, (self._rows + len(values)) // REPEATED):
                self._spell_out()
        self._rows += len(values)

    def take_back(self) -> None:
        """Forget what was added last."""
        self._rows -= len(self._chunks.pop())

    @property
    def nbytes(self) -> int:
        """Bytes held, roughly."""
        texts = 0 if self._codes is None else size_of_items(list(self._codes))
        return texts + sum(chunk.nbytes for chunk in self._chunks)

    def object_bytes(self) -> int:
        """Bytes that all of them take as Python objects, roughly; those met again and again count once."""
        return self.nbytes + (_TEXT * self._rows if self._codes is None else 0)

    def ordered(self, order: Order) -> TextColumn | FewTextsColumn:
        """The whole column in another order."""
        if self._codes is not None:
            texts = numpy.fromiter(self._codes, object, len(self._codes))
            return FewTextsColumn(_joined(self._chunks)[order], texts)
        joined = self._chunks[0] if len(self._chunks) == 1 else pyarrow.concat_arrays(self._chunks)
        return TextColumn(joined.take(pyarrow.array(order)))

    def _spell_out(self) -> None:
        try:
            texts = _texts(list(self._codes or ()))
        except (UnicodeEncodeError, pyarrow.ArrowException):
            self._chunks.pop()
            raise
        self._codes, self._chunks = None, [texts.take(pyarrow.array(chunk)) for chunk in self._chunks]


def _texts(values: Sequence[str]) -> Any:
    return pyarrow.array(values, pyarrow.large_string())


class TextColumn:
    """Texts in the order of their keys."""

    def __init__(self, texts: Any) -> None:
        self._texts = texts

    def values(self, start: int, stop: int) -> list[Any]:
        """Some of them, as Python objects."""
        values: list[Any] = self._texts.slice(start, stop - start).to_pylist()
        return values

    def packed(self, start: int, stop: int) -> tuple[Any, ...]:
        """Some of them, packed."""
        return joined_texts(self._texts.slice(start, stop - start).to_pylist())


class FewTextsColumn:
    """A few texts again and again, in the order of their keys.

    Args:
        codes: Which of the texts each is.
        texts: An array of objects.
    """

    def __init__(self, codes: Order, texts: Order) -> None:
        self._codes, self._texts = codes, texts

    def values(self, start: int, stop: int) -> list[Any]:
        """Some of them, as Python objects."""
        values: list[Any] = self._texts[self._codes[start:stop]].tolist()
        return values

    def packed(self, start: int, stop: int) -> tuple[Any, ...]:
        """Some of them, packed: the different ones, and which of these each is."""
        codes = self._codes[start:stop]
        present = numpy.flatnonzero(numpy.bincount(codes, minlength=len(self._texts)))
        numbers = numpy.zeros(len(self._texts), numpy.int64)
        numbers[present] = numpy.arange(len(present))
        return ("few", joined_texts(self._texts[present].tolist()), *narrow(numbers[codes]))


class Objects:
    """What has no column."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._lengths: list[int] = []

    def add(self, values: Sequence[Any]) -> None:
        """Append any values."""
        self._values += values
        self._lengths.append(len(values))

    def take_back(self) -> None:
        """Forget what was added last."""
        del self._values[-self._lengths.pop() :]

    @property
    def nbytes(self) -> int:
        """Bytes held, roughly."""
        return size_of_items(self._values) + 8 * len(self._values)

    def object_bytes(self) -> int:
        """The same."""
        return self.nbytes

    def ordered(self, order: Order) -> ObjectColumn:
        """All in another order."""
        return ObjectColumn(numpy.fromiter(self._values, object, len(self._values))[order])


class ObjectColumn:
    """Objects in the order of their keys."""

    def __init__(self, values: Order) -> None:
        self._values = values

    def values(self, start: int, stop: int) -> list[Any]:
        """Some of them, as Python objects."""
        values: list[Any] = self._values[start:stop].tolist()
        return values

    def packed(self, start: int, stop: int) -> tuple[Any, ...]:
        """Some of them, packed."""
        return columns_of(self._values[start:stop].tolist())


AnyColumn = Numbers | Texts | Objects
Kind = type | tuple[type, ...] | None  # of values; of the places of tuples; None or object: no column


def parts_of(values: Sequence[Any]) -> tuple[Kind, list[Sequence[Any]]]:
    """What values have in common, and what goes into each of their columns.

    Returns:
        A type, the types of the places of tuples, or None where they have no columns; and the values themselves, or
        place by place.

    >>> parts_of([(1, "a"), (2, "b")])
    ((<class 'int'>, <class 'str'>), [[1, 2], ['a', 'b']])
    """
    kind = _one_type(values)
    if kind is tuple:
        widths = set(map(len, values))
        if len(widths) == 1 and widths != {0}:
            parts: list[Sequence[Any]] = [list(map(itemgetter(place), values)) for place in range(widths.pop())]
            return tuple(map(_kind, parts)), parts
    return (kind if kind in _COLUMNS else None), [values]


def _kind(part: Sequence[Any]) -> type:
    kind = _one_type(part)
    return kind if kind in _COLUMNS and kind is not None else object


def new_columns(kind: Kind) -> list[AnyColumn]:
    """Empty columns for values of a kind."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return [_new_column(one) for one in kinds]


def _new_column(kind: type | None) -> AnyColumn:
    if kind is str:
        return Texts()
    return Numbers(kind) if kind in _NUMBERS else Objects()


def add_parts(columns: Sequence[AnyColumn], parts: Sequence[Sequence[Any]]) -> bool:
    """Append to each column its part; False, with nothing changed, where a value does not fit after all."""
    for number, (column, part) in enumerate(zip(columns, parts, strict=True)):
        try:
            column.add(part)
        except (OverflowError, UnicodeEncodeError, pyarrow.ArrowException):
            for earlier in columns[:number]:
                earlier.take_back()
            return False
    return True


def _one_type(values: Sequence[Any]) -> type | None:
    kinds = set(map(type, values))
    return kinds.pop() if len(kinds) == 1 else None


def _joined(chunks: Sequence[Order]) -> Order:
    return chunks[0] if len(chunks) == 1 else numpy.concatenate(chunks)
