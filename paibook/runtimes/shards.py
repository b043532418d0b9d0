"""``pai.shard``: the part of a source that is the running rank's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow

from paibook.comms.communicator import Communicator
from paibook.comms.positions import position
from paibook.data.dataset import Dataset
from paibook.data.frames import common_schema, concatenated, in_schema
from paibook.data.shards import Equal, Shard, check_part, epoch_order, spans
from paibook.data.splits import FileSplit, file_splits
from paibook.data.tables import rows_of
from paibook.errors import PaibookError, PlanError

T = TypeVar("T")


def shard(
    source: Any,
    *,
    equal: Equal = False,
    seed: int = 0,
    rank: int | None = None,
    size: int | None = None,
    format: str | None = None,
    columns: Sequence[str] | None = None,
) -> Shard | FileShard:
    """This rank's part of a source: ``.data``, or ``.epoch(n)`` reshuffled; in one epoch no sample is lost or doubled.

    Args:
        source: Arrays, tensors, DataFrames, Arrow tables, lists, torch ``Dataset``s, or a tuple or dict of them, equal
            on all ranks; or files: a path, glob, folder, URL, a list of ``Path`` objects, a ``Dataset`` of a run. Of
            files each rank reads its own part, by ranges of bytes and row groups; all ranks call it.
        equal: False: each sample is one rank's, and parts differ by one at most. True or ``"drop"``: parts are equal,
            fewer than ``size`` samples are left out, others in each epoch. ``"pad"``: parts are equal, some samples are
            in two.
        seed: Of the shuffling.
        rank, size: Whose part of how many; the running cell's where None. With both, files are not evened out.
        format: Of files, one of ``FORMATS``; by their extension where None.
        columns: Of files, those to read; all where None.

    Raises:
        PlanError: Options that cannot be meant.
        DataError: A source that cannot be read or indexed; names it.
    """
    if (rank is None) != (size is None):
        raise PlanError("a shard's rank and size are given together, or neither: then they are the running cell's")
    here = position()
    comm = here.comm if rank is None else None
    number, ranks = here.rank if rank is None else rank, here.size if size is None else size
    check_part(number, ranks, equal)
    patterns = _patterns(source)
    if not patterns:
        if columns is not None or format is not None:
            raise PlanError(
                "a shard's format and columns are for files; take the columns of what is in memory yourself"
            )
        return Shard(source, number, ranks, equal, seed)
    partitions = source.partitions if isinstance(source, Dataset) else None

    def cut() -> list[FileSplit]:
        return file_splits(patterns, ranks, format, typed=True, partitions=partitions)

    return FileShard(cut() if comm is None else _by_first(comm, cut), number, ranks, equal, seed, comm, columns)


class FileShard:
    """A rank's part of files. Its operations that read are collective where ``comm`` is given.

    Args:
        splits: All of the input, equal on all ranks.
        rank, size: Whose part, of how many.
        equal: As for ``shard``.
        seed: Of the shuffling.
        comm: Moves rows between ranks until parts are even. Without it, parts are what their splits hold.
        columns: Those to read, all where None.

    Raises:
        PlanError: ``equal`` without ``comm``.
    """

    def __init__(
        self,
        splits: Sequence[FileSplit],
        rank: int,
        size: int,
        equal: Equal = False,
        seed: int = 0,
        comm: Communicator | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        if equal and comm is None and size > 1:
            raise PlanError("equal parts of files need comm between the ranks: leave rank and size to %%pai_allreduce")
        self.rank, self.size, self.equal, self.seed = rank, size, equal, seed
        self._splits, self._comm, self._columns = list(splits), comm, columns
        self._kept: pyarrow.Table | None = None

    @property
    def data(self) -> pyarrow.Table:
        """This rank's rows, in the order of the input; read once and kept."""
        if self._kept is None:  # no cached_property: in Python 3.11 ranks that are threads wait for each other in it
            self._kept = self._table(None)
        return self._kept

    def epoch(self, number: int) -> pyarrow.Table:
        """This rank's rows of epoch ``number``: the splits are dealt out anew and read, the rows of a rank shuffled."""
        table = self._table(number)
        return table.take(np.random.default_rng([self.seed, number, self.rank]).permutation(table.num_rows))

    def splits(self, epoch: int | None = None) -> list[FileSplit]:
        """This rank's splits, to be read piece by piece where they do not fit into memory: ``split.tables()``."""
        order = epoch_order(len(self._splits), self.seed, epoch)
        ends = np.cumsum([self._splits[i].weight for i in order])
        middles = ends - np.array([self._splits[i].weight for i in order]) / 2
        ranks = np.minimum(middles * self.size // max(1, ends[-1] if len(ends) else 1), self.size - 1)
        return [self._splits[i] for i in order[ranks == self.rank]]

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.data.to_batches(max_chunksize=4096):
            yield from rows_of(batch)

    def __repr__(self) -> str:
        return f"<shard of rank {self.rank} of {self.size}: files in {len(self._splits)} splits>"

    def _table(self, epoch: int | None) -> pyarrow.Table:
        def read() -> pyarrow.Table | None:
            tables = [table for split in self.splits(epoch) for table in split.tables(self._columns)]
            return concatenated(tables, "the source") if tables else None

        if self._comm is None:
            found = read()
            return pyarrow.table({}) if found is None else found
        return _evened(_everywhere(self._comm, read), self._comm, self.equal)


def _evened(table: pyarrow.Table | None, comm: Communicator, equal: Equal) -> pyarrow.Table:
    """Rows moved between neighbours until each rank has its ``spans`` of the whole, all in one schema."""
    known = comm.allgather(None if table is None else (table.num_rows, table.schema))
    schemas = [found[1] for found in known if found is not None]
    schema = common_schema(schemas, "the source") if schemas else pyarrow.schema([])
    counts = [0 if found is None else found[0] for found in known]
    first = sum(counts[: comm.rank])
    own = schema.empty_table() if table is None else in_schema(table, schema)
    wanted = [_overlaps(own, first, spans(sum(counts), rank, comm.size, equal)) for rank in range(comm.size)]
    parts = comm.alltoall([{} if rank == comm.rank else _copied(wanted[rank]) for rank in range(comm.size)])
    parts[comm.rank] = wanted[comm.rank]
    arrived = sorted(((place, rank) for rank, part in enumerate(parts) for place in part))
    return pyarrow.concat_tables([schema.empty_table(), *(parts[rank][place] for place, rank in arrived)])


def _overlaps(table: pyarrow.Table, first: int, ranges: Sequence[tuple[int, int]]) -> dict[int, pyarrow.Table]:
    """The rows of a table that begins at position ``first`` which lie in ranges, by the range's number."""
    found = {}
    for number, (start, stop) in enumerate(ranges):
        begin, end = max(start - first, 0), min(stop - first, table.num_rows)
        if begin < end:
            found[number] = table.slice(begin, end - begin)
    return found


def _copied(parts: dict[int, pyarrow.Table]) -> dict[int, pyarrow.Table]:
    """Slices as tables of their own: a slice is pickled with all that it was cut from."""
    return {number: part.take(np.arange(part.num_rows)) for number, part in parts.items()}


def _by_first(comm: Communicator, function: Callable[[], T]) -> T:
    """What a function gives, or raises, on rank 0; on every rank."""
    found: Any = None
    if comm.rank == 0:
        try:
            found = function()
        except PaibookError as error:
            found = error
    found = comm.bcast(found)
    if isinstance(found, PaibookError):
        raise found
    result: T = found
    return result


def _everywhere(comm: Communicator, function: Callable[[], T]) -> T:
    """Call a function on every rank; where one raises, all do."""
    found: Any = None
    error: PaibookError | None = None
    try:
        found = function()
    except PaibookError as raised:
        error = raised
    for failed in comm.allgather(error):
        if failed is not None:
            raise failed
    result: T = found
    return result


def _patterns(source: Any) -> list[str]:
    """The paths that a source names; none where it is no path."""
    if isinstance(source, (str, Path)):
        return [str(source)]
    if isinstance(source, Dataset):
        return [str(source.path)]
    if isinstance(source, list) and source and all(isinstance(item, Path) for item in source):
        return [str(path) for path in source]
    return []
