"""Staging: outputs grow beside their targets, out of sight, and appear whole, or not at all."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from paibook.data.dataset import Dataset, output_format
from paibook.data.frames import common_schema
from paibook.data.parts import Part, PartWriter, write_empty
from paibook.errors import DataError

_AT_FDCWD, _RENAME_NOREPLACE, _RENAME_EXCHANGE = -100, 1, 2  # linux/fcntl.h, linux/fs.h


def check_target(path: str, overwrite: bool) -> Path:
    """The folder a dataset may be written to, as an absolute path.

    Raises:
        DataError: It exists and may not be replaced, its parent does not exist or may not be written to, or it is not
            on a local path.
        PlanError: An extension paibook does not write.
    """
    output_format(path)
    if "://" in path and not path.startswith("file://"):
        raise DataError(
            f"cannot write {path!r}: an output is a path on a file system that all workers share; object stores have "
            "no rename that would show a dataset at once. Write to a local path, then copy it there"
        )
    target = Path(os.path.abspath(Path(path.removeprefix("file://")).expanduser()))
    if os.path.lexists(target) and not overwrite:
        raise DataError(f"the output {target} exists; choose another, or replace it with --overwrite")
    if not target.parent.is_dir():
        raise DataError(f"the folder {target.parent} of the output {target.name!r} does not exist; create it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise DataError(f"cannot write the output {target}: no permission to write to the folder {target.parent}")
    return target


class Staging:
    """A folder beside the target in which tasks write parts, until one rename shows them all.

    Tasks write in ``attempts``; of what they leave there only the parts they returned are committed, so an attempt
    that was repeated, or was cut off, leaves no record behind.

    Args:
        target: As ``check_target`` gives it.
        run: Makes the name unique.
        overwrite: Whether the target may be replaced.
        resume: Go on in the folder that a run of this name left when its notebook died, with the parts in it.
        partition_by: Columns that become folders of the dataset.
    """

    def __init__(
        self, target: Path, run: str, overwrite: bool = False, resume: bool = False, partition_by: Sequence[str] = ()
    ) -> None:
        self.target = target
        self.format = output_format(str(target))
        self.root = target.parent / f".{target.name}.staging-{run}"
        self.attempts = self.root / "attempts"
        self._complete = self.root / "complete"
        self._old = self.root / "old"
        self._intent = self.root / "intent"  # the files about to be shown, one a line
        self._shown = False
        self._overwrite, self._resume, self._by = overwrite, resume, tuple(partition_by)

    def __enter__(self) -> Staging:
        try:
            self.attempts.mkdir(parents=True, exist_ok=self._resume)
            if self._resume:
                self._shown = self._was_shown()
                self._go_back()
            self._complete.mkdir(exist_ok=self._shown)
        except OSError as error:
            raise DataError(f"cannot write to {self.target.parent}: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def shown(self) -> bool:
        """Whether the run that is resumed had shown this output before it died; committing it changes nothing."""
        return self._shown

    def writer(self, number: int) -> PartWriter:
        """What the task of a partition writes with."""
        return PartWriter(self.attempts, self.format, number, self._by)

    def holds(self, part: Part) -> bool:
        """Whether a part that a task returned is here, or already in the target, with the size it was written with."""
        return any(_is_whole(folder / part.name, part) for folder in (self.attempts, self.target))

    def commit(self, parts: Sequence[Part]) -> Dataset:
        """Show exactly these parts as the target; until then an old target stays as it was.

        Raises:
            DataError: A part is missing here or cut off, the target appeared meanwhile, or it cannot be written.
        """
        return commit_all([self], [parts])[0]

    def _go_back(self) -> None:
        """Undo a commit that was cut off before its rename; parts are where tasks left them again."""
        if self._old.exists() and not os.path.lexists(self.target):
            os.rename(self._old, self.target)  # died between the two renames of an overwrite
        if self._complete.exists() and not self._shown:  # once shown, it is the old target
            for file in _files(self._complete):
                _move(file, self.attempts / file.relative_to(self._complete))
            shutil.rmtree(self._complete)

    def _was_shown(self) -> bool:
        """Whether the run died after its rename: names of parts are unique, so only that rename put them there."""
        if not self._intent.exists():
            return False
        names = self._intent.read_text(encoding="utf-8").splitlines()
        return bool(names) and all((self.target / name).is_file() for name in names)

    def _prepare(self, parts: Sequence[Part]) -> Dataset:
        """All that may fail before the target is touched: the parts in their place and on disk."""
        if self._shown:
            return self._dataset(parts, self.target)
        parts = list(parts) or [write_empty(self.attempts, self.format)]
        for part in parts:
            self._collect(part)
        files = _files(self._complete)
        for folder in {file.parent for file in files} | {self._complete}:
            _sync_folder(folder)
        if os.path.lexists(self.target) and not self._overwrite:
            raise self._appeared()
        names = [file.relative_to(self._complete).as_posix() for file in files]
        self._intent.write_text("\n".join(names), encoding="utf-8")
        return self._dataset(parts, self._complete)

    def _dataset(self, parts: Sequence[Part], folder: Path) -> Dataset:
        size = sum(file.stat().st_size for file in _files(folder))
        schemas = [part.partitions for part in parts if part.partitions is not None]
        types = common_schema(schemas, str(self.target)) if schemas else None
        return Dataset(self.target, sum(part.rows for part in parts), size, types)

    def _collect(self, part: Part) -> None:
        source = self.attempts / part.name
        if not source.exists():
            raise DataError(
                f"a worker wrote {part.name}, but it is not in {self.attempts} here: an output folder must lie on a "
                "file system that the notebook and all workers share"
            )
        if not _is_whole(source, part):
            found = source.stat().st_size
            raise DataError(f"{source} has {found} bytes where {part.size} were written: it was cut off or changed")
        _move(source, self._complete / part.name)

    def _show(self) -> Callable[[], None]:
        """Make the target what is complete; returns what undoes that."""
        if _renameat2(self._complete, self.target, _RENAME_NOREPLACE):
            return lambda: os.rename(self.target, self._complete)
        if not os.path.lexists(self.target):  # no renameat2 here
            os.rename(self._complete, self.target)
            return lambda: os.rename(self.target, self._complete)
        if not self._overwrite:
            raise self._appeared()
        if _exchange(self._complete, self.target):
            return lambda: self._exchange_back()
        self._swap()
        return self._swap_back

    def _exchange_back(self) -> None:
        if not _exchange(self._complete, self.target):
            raise OSError(f"{self.target} could not be exchanged with {self._complete}")

    def _swap(self) -> None:
        """Two renames where the system cannot exchange folders; the old one is put back when the second fails."""
        os.rename(self.target, self._old)
        try:
            os.rename(self._complete, self.target)
        except OSError:
            os.rename(self._old, self.target)
            raise

    def _swap_back(self) -> None:
        os.rename(self.target, self._complete)
        os.rename(self._old, self.target)

    def _appeared(self) -> DataError:
        return DataError(f"the output {self.target} appeared while the run was writing; it was left as it is")


def commit_all(stagings: Sequence[Staging], parts: Sequence[Sequence[Part]]) -> list[Dataset]:
    """Show several outputs as near to together as file systems allow.

    Each output appears whole or not at all. Together: all that is likely to fail (a missing part, a target that may not
    be replaced) is checked before the first rename; then there is one rename per output, and when one of them fails,
    those before it are undone. A machine that dies between two renames leaves some outputs shown and others not;
    entering the stagings again with ``resume`` and committing the same parts completes them.

    Args:
        stagings: Entered, of different targets.
        parts: What the tasks returned, for each staging.

    Raises:
        DataError: As ``Staging.commit``; then no target has changed, or the message says which one has.
    """
    pairs = list(zip(stagings, parts, strict=True))
    datasets = []
    for staging, some in pairs:
        try:
            datasets.append(staging._prepare(some))
        except OSError as error:
            raise DataError(f"cannot write the output {staging.target}: {error}") from error
    hidden = [staging for staging in stagings if not staging.shown]
    _show_all(hidden)
    for folder in {staging.target.parent for staging in hidden}:
        _sync_folder(folder)
    return datasets


def _show_all(stagings: Sequence[Staging]) -> None:
    undo: list[tuple[Staging, Callable[[], None]]] = []
    for staging in stagings:
        try:
            undo.append((staging, staging._show()))
        except (OSError, DataError) as error:
            kept = _undo_all(undo)
            note = f"; these outputs are already replaced: {', '.join(kept)}" if kept else ""
            message = (
                str(error) if isinstance(error, DataError) else f"cannot write the output {staging.target}: {error}"
            )
            raise DataError(message + note) from error


def _undo_all(undo: Sequence[tuple[Staging, Callable[[], None]]]) -> list[str]:
    """Undo, last first; returns the targets where that failed."""
    kept = []
    for staging, action in reversed(undo):
        try:
            action()
        except OSError:
            kept.append(str(staging.target))
    return kept


def _is_whole(path: Path, part: Part) -> bool:
    try:
        return part.size is None or path.stat().st_size == part.size
    except (FileNotFoundError, NotADirectoryError):
        return False


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _move(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    os.rename(source, destination)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths atomically; False where that cannot be done."""
    return _renameat2(one, other, _RENAME_EXCHANGE)


def _renameat2(one: Path, other: Path, flags: int) -> bool:
    """Linux's renameat2; False where it is missing or fails."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    return libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), flags) == 0


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
