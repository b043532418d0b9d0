"""Checkpoints: every partition's rows in Parquet files of their own, and a manifest that is published last.

``FOLDER/manifest.json`` names the checkpoint that is whole, ``FOLDER/clock-00000030``; in it each table has a file for
each partition, ``0.part-1.parquet``, with the columns ``key`` (a dense table's row number), ``weights`` and
``state.<name>``. A file is written beside its place, forced to disk and renamed: whatever has its name is whole.
Rows are found again by key, so a checkpoint loads into any number of servers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import math
import os
import queue
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from paibook.errors import PlanError, RunError, TableError
from paibook.runtimes.ps.messages import Saving
from paibook.runtimes.ps.partition import Partition
from paibook.runtimes.ps.shards import TableSpec, owners, row_ranges

if TYPE_CHECKING:
    from paibook.runtimes.ps.tables import Shard

log = logging.getLogger(__name__)

FORMAT = "paibook parameter-server checkpoint"
VERSION = 1
MANIFEST = "manifest.json"
_OF_SHARD = ("counters", "admission.counters")  # what a shard keeps of no row in particular
WRITE_SECONDS = 600.0  # for the last checkpoint to be on disk when the run ends

Array = NDArray[Any]
Arrays = dict[str, Array]


class CheckpointFailed(RunError):
    """A checkpoint cannot be written."""


class Saver:
    """Writes a server's partitions; they are copied at once and written by a thread of its own.

    Args:
        saving: Where, and how often.
        partitions: Of the run.
        saved: Told of each partition that is on disk: clock, partition, its tables.
        failed: Told of what goes wrong.
    """

    def __init__(
        self,
        saving: Saving,
        partitions: int,
        saved: Callable[[int, int, list[dict[str, Any]]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._saving = saving
        self._partitions = partitions
        self._saved = saved
        self._failed = failed
        self._jobs: queue.SimpleQueue[tuple[int, int, list[tuple[int, TableSpec, Arrays]]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="paibook-checkpoints", daemon=True)
        self._thread.start()

    def due(self, clock: int) -> bool:
        """Whether there is a checkpoint at this clock."""
        return self._saving.every > 0 and clock > 0 and clock % self._saving.every == 0

    def save(self, clock: int, partition: Partition) -> None:
        """Copy a partition, which is locked, to be written."""
        # One that a replica has yet to fill from the checkpoint before this must not take that one's place.
        settled = [(number, partition.shards[number]) for number in sorted(partition.settled)]
        tables = [(number, shard.spec, shard.dump()) for number, shard in settled]
        self._jobs.put((clock, partition.number, tables))

    def close(self, wait: bool = False) -> None:
        """End the thread once it has written what was saved, and wait for that if asked to. Safe to repeat."""
        self._jobs.put(None)
        if wait:
            self._thread.join(WRITE_SECONDS)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            clock, partition, tables = job
            try:
                for number, spec, arrays in tables:
                    first = 0 if spec.sparse else row_ranges(spec.shape[0], self._partitions)[partition].start
                    _write_table(_part(self._saving.folder, clock, number, partition), arrays, first)
            except OSError as error:
                self._failed(unwritable(self._saving.folder, clock, error))
                return
            self._saved(clock, partition, [{"number": number, "spec": spec.to_wire()} for number, spec, _ in tables])


def publish(
    folder: str,
    clock: int,
    parts: Sequence[Sequence[Mapping[str, Any]]],
    best: Mapping[str, tuple[float, int]] = MappingProxyType({}),
) -> None:
    """Make the checkpoint of a clock, all of whose files are written, the one that is found; older ones go.

    A table that not all partitions have, since it was declared meanwhile or not yet again, stays as it was before.

    Args:
        folder: Of checkpoints.
        clock: Its clock.
        parts: The tables that each partition has.
        best: See ``Saving``.

    Raises:
        OSError: The manifest cannot be written.
        PlanError: The one that is there has become another program's.
    """
    common = set.intersection(*({table["number"] for table in part} for part in parts))
    told = {"format": FORMAT, "version": VERSION, "clock": clock, "partitions": len(parts), "best": dict(best)}
    tables = tables_of({**told, "tables": [table for table in parts[0] if table["number"] in common]})
    named = {table["spec"]["name"] for table in tables}
    before = find(folder)
    tables += [table for table in tables_of(before) if table["spec"]["name"] not in named] if before else []
    text = json.dumps({**told, "tables": tables}, indent=1)
    _replace(Path(folder) / MANIFEST, lambda path: path.write_text(text))
    _clear(folder, {clock, *(table["clock"] for table in tables)}, clock)


def _tidy(folder: str) -> None:
    manifest = find(folder)
    wanted = set() if manifest is None else {manifest["clock"], *(table["clock"] for table in tables_of(manifest))}
    _clear(folder, wanted)


def _clear(folder: str, wanted: set[int], until: float = math.inf) -> None:
    """Remove the files of clocks before ``until``, other than those wanted; what else lies in the folder stays."""
    if not Path(folder).is_dir():
        return
    for path in Path(folder).iterdir():
        if re.fullmatch(r"clock-\d{8}", path.name) and int(path.name[6:]) < until and int(path.name[6:]) not in wanted:
            shutil.rmtree(path, ignore_errors=True)


def tables_of(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A manifest's tables: ``number`` and ``spec``, and ``clock`` and ``partitions`` of its files."""
    own = {"clock": manifest["clock"], "partitions": manifest["partitions"]}
    return [{**own, **table} for table in manifest["tables"]]


def find(folder: str) -> dict[str, Any] | None:
    """The manifest of the checkpoint in a folder; None where there is none.

    Raises:
        PlanError: What is there is no checkpoint of ours.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PlanError(f"--checkpoint {folder}: {MANIFEST} there cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise PlanError(f"--checkpoint {folder}: {MANIFEST} there is another program's; give a folder of its own")
    if manifest["version"] != VERSION:
        raise PlanError(
            f"--checkpoint {folder}: it holds a checkpoint of version {manifest['version']}, and this paibook reads "
            f"version {VERSION}"
        )
    return manifest


def check(folder: str) -> None:
    """Refuse a folder that cannot be written to, or made; makes none.

    Raises:
        PlanError: Saying why.
    """
    try:
        place = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise PlanError(f"--checkpoint {folder}: it cannot be written to: {error.strerror}") from error


@contextlib.contextmanager
def claim(saving: Saving | None) -> Iterator[None]:
    """Make the folder, and keep other runs from writing to it, or from reading what this one may remove.

    At the end, what was written of checkpoints that were never published is removed.
    The lock is the folder's own and goes with the process. Where the file system has none, two runs are not noticed.

    Raises:
        PlanError: Another run uses it, or it cannot be made.
    """
    if saving is None:
        yield
        return
    try:
        Path(saving.folder).mkdir(parents=True, exist_ok=True)
        folder = os.open(saving.folder, os.O_RDONLY)
    except OSError as error:
        raise PlanError(f"--checkpoint {saving.folder}: it cannot be written to: {error.strerror}") from error
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_NB | (fcntl.LOCK_EX if saving.every else fcntl.LOCK_SH))
        except BlockingIOError as error:
            raise PlanError(
                f"--checkpoint {saving.folder}: another run uses it; wait for its end, or give another folder"
            ) from error
        except OSError as error:
            log.debug("%s cannot be locked: %s", saving.folder, error)
        try:
            yield
        finally:
            if saving.every:
                with contextlib.suppress(PlanError):  # without a manifest that can be read, nothing may go
                    _tidy(saving.folder)
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_UN)  # closing does not suffice where a process was forked meanwhile
        os.close(folder)


def restore(saving: Saving, shard: Shard, partition: int, partitions: int, declared: Iterable[str]) -> None:
    """Fill a fresh shard with its rows of the checkpoint that the run goes on from.

    A table that it does not have was not declared by then and stays fresh, where those before it were.

    Args:
        saving: The run's.
        shard: Of a table that is declared just now.
        partition: Which partition's.
        partitions: How many there are now.
        declared: Names of the tables that were declared before it.

    Raises:
        TableError: The checkpoint has none of the tables so far, or has this one otherwise: it is another program's.
        RunError: A file of it is missing or damaged.
    """
    spec = shard.spec
    where = f"the checkpoint in {saving.folder}"
    known = {table["spec"]["name"]: table for table in saving.tables}
    if spec.name not in known:
        if known.keys().isdisjoint(declared) and known:
            names = ", ".join(map(repr, known))
            raise TableError(f"{where} is another program's: its tables are {names}; give another --checkpoint folder")
        return
    table = known[spec.name]
    if difference := TableSpec.from_wire(table["spec"]).differs_from(spec):
        raise TableError(f"{where} has it otherwise: now {difference}; give another --checkpoint folder")
    paths = [_part(saving.folder, table["clock"], table["number"], p) for p in range(table["partitions"])]
    try:
        parts = [_read_table(path, spec, partition, partitions) for path in paths]
        others = [dict(np.load(path.with_suffix(".npz"))) for path in paths]
    except (OSError, ValueError, zipfile.BadZipFile, pyarrow.ArrowException) as error:
        raise RunError(f"{where} is damaged: {error}") from error
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if not spec.sparse and len(arrays["keys"]) != shard.rows:
        raise RunError(f"{where} is damaged: table {spec.name!r} has {len(arrays['keys'])} rows of {shard.rows}")
    order = np.argsort(arrays["keys"], kind="stable")
    arrays = {name: array[order] for name, array in arrays.items()}
    if not spec.sparse:
        del arrays["keys"]
    # Each of the old shards counted for itself; keys that waited for admission may come in early, and never late.
    arrays |= {name: np.max([other[name] for other in others], axis=0) for name in others[0]}
    shard.load(arrays)
    shard.skipped = 0  # those of this run


def unwritable(folder: str, clock: int, error: OSError) -> CheckpointFailed:
    """What to say when a checkpoint cannot be written."""
    return CheckpointFailed(
        f"the checkpoint of clock {clock} cannot be written to {folder}: {error.strerror or error}. What was saved "
        "before is whole; make room there, or give another --checkpoint folder, and run the cell again"
    )


def _part(folder: str, clock: int, number: int, partition: int) -> Path:
    return Path(folder) / f"clock-{clock:08d}" / f"{number}.part-{partition}.parquet"


def _write_table(path: Path, arrays: Arrays, first: int) -> None:
    rows = {name: array for name, array in arrays.items() if not name.startswith(("waiting", *_OF_SHARD))}
    keys = rows.pop("keys", None)
    if keys is None:
        keys = np.arange(first, first + len(rows["weights"]), dtype=np.int64)
    columns = {"key": pyarrow.array(keys), **{name: _column(array) for name, array in rows.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    _replace(path, lambda beside: pyarrow.parquet.write_table(table, beside, compression="zstd"))
    others = {name: arrays[name] for name in _OF_SHARD if name in arrays}
    _replace(path.with_suffix(".npz"), lambda beside: _write_arrays(beside, others))


def _write_arrays(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:  # given a path, NumPy appends a suffix to it
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its stubs take no array by name


def _read_table(path: Path, spec: TableSpec, partition: int, partitions: int) -> Arrays:
    table = pyarrow.parquet.read_table(path)
    keys = table["key"].to_numpy()
    if spec.sparse:
        mine = np.flatnonzero(owners(keys, partitions) == partition)
    else:
        rows = row_ranges(spec.shape[0], partitions)[partition]
        mine = np.flatnonzero((keys >= rows.start) & (keys < rows.stop))
    found = {"keys": keys[mine]}
    for name in table.column_names[1:]:
        column = table[name].combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False).reshape(len(keys), column.type.list_size)[mine]
        dtype = np.dtype(spec.dtype) if flat.dtype.itemsize == np.dtype(spec.dtype).itemsize else flat.dtype
        found[name] = flat.view(dtype) if flat.dtype.kind == "u" else flat
        if name.startswith("pushed."):
            found[name] = found[name].reshape(-1)
        elif found[name].shape[1] == spec.width:
            found[name] = found[name].reshape(len(mine), *spec.row_shape)
    return found


def _column(array: Array) -> pyarrow.Array:
    """Rows as lists of fixed size; what Arrow has no type for as unsigned integers of its size."""
    flat = array.reshape(-1)
    try:
        values = pyarrow.array(flat)
    except (pyarrow.ArrowException, NotImplementedError):
        values = pyarrow.array(flat.view(f"u{flat.dtype.itemsize}"))
    return pyarrow.FixedSizeListArray.from_arrays(values, max(1, math.prod(array.shape[1:])))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, force it to disk, and rename it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        write(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
