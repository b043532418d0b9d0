"""Shards: which samples of an epoch are a rank's, as decisions on indices, and parts of what is in memory.

An *order* is an array of indices: the samples of one epoch, shuffled or not. It is dealt out in blocks, so that a part
of an unshuffled array is a view of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow
from numpy.typing import NDArray

from paibook.data.variables import items_of
from paibook.errors import DataError, PlanError

Indices = NDArray[np.int64]
Equal = bool | Literal["drop", "pad"]


def epoch_order(total: int, seed: int = 0, epoch: int | None = None) -> Indices:
    """The order of an epoch's samples, equal on every rank: shuffled by seed and epoch, or as they lie where None."""
    return np.arange(total) if epoch is None else np.random.default_rng([seed, epoch]).permutation(total)


def spans(total: int, rank: int, size: int, equal: Equal = False) -> list[tuple[int, int]]:
    """The positions in an order that are a rank's, as ranges.

    Args:
        equal: False: each sample once, parts differ by one at most. True or ``"drop"``: parts are equal, the last
            ``total % size`` samples are left out. ``"pad"``: parts are equal, the first samples come again.

    >>> [spans(5, rank, 2) for rank in range(2)], spans(5, 1, 2, "pad")
    ([[(0, 2)], [(2, 5)]], [(3, 5), (0, 1)])
    """
    if equal is False:
        return [(total * rank // size, total * (rank + 1) // size)]
    if equal != "pad":
        length = total // size
        return [(rank * length, (rank + 1) * length)]
    length = -(-total // size)
    start, stop = rank * length, (rank + 1) * length
    found = []
    while start < stop:
        first = start % total
        last = min(total, first + stop - start)
        found.append((first, last))
        start += last - first
    return found


def deal(order: Indices, rank: int, size: int, equal: Equal = False) -> Indices:
    """A rank's samples, in their order; ``equal`` as for ``spans``."""
    parts = [order[start:stop] for start, stop in spans(len(order), rank, size, equal)]
    return parts[0] if len(parts) == 1 else np.concatenate([order[:0], *parts])


def remaining(order: Indices, progress: Sequence[int], equal: Equal = False) -> Indices:
    """What is left of an epoch: an order to be dealt out again, to any number of ranks.

    Args:
        order: What was dealt out, to ``len(progress)`` ranks.
        progress: How many of its samples each rank has done, by rank.
        equal: As it was dealt. Samples that were dropped are left; those that came twice are done once either was.

    Raises:
        PlanError: A progress that is not possible.

    >>> remaining(np.arange(6), [1, 3]).tolist()
    [1, 2]
    """
    positions = np.arange(len(order))
    left = np.ones(len(order), dtype=bool)
    for rank, done in enumerate(progress):
        part = deal(positions, rank, len(progress), equal)
        if not 0 <= done <= len(part):
            raise PlanError(f"rank {rank} of {len(progress)} had {len(part)} samples; it cannot have done {done}")
        left[part[:done]] = False
    return order[left]


class Shard:
    """A rank's part of samples that every rank has at hand (or a torch ``Dataset``, read when it is indexed).

    Args:
        source: A NumPy array, torch tensor, scipy matrix, DataFrame, Arrow table, list, other iterable, or torch
            ``Dataset``; a tuple or dict of them is dealt out alike.
        rank, size: Whose part, of how many.
        equal: As for ``spans``.
        seed: Of the epochs' orders.

    Attributes:
        source: What is dealt out, in the form that indices are taken from.
        total: Samples in the whole.

    Raises:
        DataError: No samples can be had from the source, or parts of a tuple differ in length.
        PlanError: ``rank``, ``size`` or ``equal`` cannot be meant.
    """

    def __init__(self, source: Any, rank: int, size: int, equal: Equal = False, seed: int = 0) -> None:
        check_part(rank, size, equal)
        self.rank, self.size, self.equal, self.seed = rank, size, equal, seed
        self.source = _indexable(source)
        self.total = _length(self.source)

    @property
    def data(self) -> Any:
        """This rank's part in the source's own form and order; a view where the source has views."""
        ranges = spans(self.total, self.rank, self.size, self.equal)
        return _take(self.source, slice(*ranges[0]) if len(ranges) == 1 else self.indices())

    def epoch(self, number: int, before: Sequence[Sequence[int]] = ()) -> Any:
        """This rank's part of epoch ``number``, reshuffled, in the source's own form (a ``Subset`` of a ``Dataset``).

        Args:
            before: Where the number of ranks changed within the epoch: for each earlier group the ``progress`` of its
                ranks, as for ``remaining``. What they left is dealt out.
        """
        return _take(self.source, self.indices(number, before))

    def indices(self, epoch: int | None = None, before: Sequence[Sequence[int]] = ()) -> Indices:
        """Which samples of the source are this rank's; ``before`` as for ``epoch``."""
        order = epoch_order(self.total, self.seed, epoch)
        for progress in before:
            order = remaining(order, progress, self.equal)
        return deal(order, self.rank, self.size, self.equal)

    def __len__(self) -> int:
        return sum(stop - start for start, stop in spans(self.total, self.rank, self.size, self.equal))

    def __iter__(self) -> Iterator[Any]:
        return (_sample(self.source, int(index)) for index in self.indices())

    def __repr__(self) -> str:
        return f"<shard of rank {self.rank} of {self.size}: {len(self):,} of {self.total:,} samples>"


def check_part(rank: int, size: int, equal: Equal) -> None:
    """Refuse what is no part.

    Raises:
        PlanError: Naming it.
    """
    if not 0 <= rank < size:
        raise PlanError(f"a shard is that of a rank from 0 to size - 1; got rank {rank!r}, size {size!r}")
    if equal not in (True, False, "drop", "pad"):
        raise PlanError(f"equal must be True (or 'drop'), 'pad' or False; got {equal!r}")


def _indexable(source: Any) -> Any:
    """The source itself where samples can be taken out of it by index, else a list of them."""
    if isinstance(source, tuple) and source:
        return tuple(map(_indexable, source))
    if isinstance(source, Mapping) and source:
        return {name: _indexable(part) for name, part in source.items()}
    if _is_dataset(source):
        if isinstance(source, sys.modules["torch.utils.data"].IterableDataset):
            raise DataError("a shard takes samples by index, which an IterableDataset has not; pass list(dataset)")
        return source
    if getattr(source, "shape", None) and hasattr(source, "tocsr"):
        return source.tocsr()  # of scipy's matrices the one that gives rows
    return source if getattr(source, "shape", None) else items_of("source", source)


def _is_dataset(source: Any) -> bool:
    # A value can only be of torch's if torch is already imported.
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(source, data.Dataset)


def _length(source: Any) -> int:
    if isinstance(source, (tuple, dict)):
        parts = list(source.values()) if isinstance(source, dict) else source
        lengths = [_length(part) for part in parts]
        if len(set(lengths)) > 1:
            raise DataError(f"parts of one source have the same number of samples; these have {lengths}")
        return lengths[0]
    shape = getattr(source, "shape", None)
    return int(shape[0]) if shape else len(source)


def _take(source: Any, where: slice | Indices) -> Any:
    if isinstance(source, tuple):
        return tuple(_take(part, where) for part in source)
    if isinstance(source, dict):
        return {name: _take(part, where) for name, part in source.items()}
    if isinstance(source, pyarrow.Table):
        return source.slice(where.start, where.stop - where.start) if isinstance(where, slice) else source.take(where)
    if hasattr(source, "iloc"):
        return source.iloc[where]
    if _is_dataset(source):
        numbers = range(where.start, where.stop) if isinstance(where, slice) else where.tolist()
        return sys.modules["torch.utils.data"].Subset(source, numbers)
    if isinstance(source, list):
        return source[where] if isinstance(where, slice) else [source[i] for i in where.tolist()]
    return source[where]


def _sample(source: Any, index: int) -> Any:
    if isinstance(source, tuple):
        return tuple(_sample(part, index) for part in source)
    if isinstance(source, dict):
        return {name: _sample(part, index) for name, part in source.items()}
    if isinstance(source, pyarrow.Table):
        return {name: source[name][index].as_py() for name in source.column_names}
    return source.iloc[index] if hasattr(source, "iloc") else source[index]
