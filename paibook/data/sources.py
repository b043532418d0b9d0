"""Sources: what the entries of a plan's inputs stand for, cut into splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from paibook.data.dataset import Dataset
from paibook.data.splits import Split, file_splits
from paibook.data.variables import PendingSplit, is_collection, pending_splits, variable_splits
from paibook.errors import DataError, PlanError

Entry = str | Mapping[str, Any]
KINDS = ("path", "variable", "run")


def kind_of(entry: Entry) -> tuple[str, str]:
    """What an entry of a plan's inputs is, ``"path"``, ``"variable"`` or ``"run"``, and its path, name or identifier.

    Raises:
        PlanError: It is none of these.
    """
    if isinstance(entry, str):
        return "path", entry
    if isinstance(entry, Mapping):
        for kind in KINDS:
            if isinstance(entry.get(kind), str):
                return kind, entry[kind]
    raise PlanError(f"an input is a path, a variable or a run; got {entry!r}")


def input_splits(
    entries: Sequence[Entry],
    slots: int,
    variables: Mapping[str, Any],
    format: str | None = None,
    split_bytes: int | None = None,
    typed: bool = False,
    compute: Callable[[Any], Sequence[Any]] | None = None,
    output_of: Callable[[str], Any] | None = None,
) -> list[Split | PendingSplit]:
    """The splits of the entries of one input, in their order. Paths that follow each other are cut together.

    Args:
        entries: A path, glob, folder or URL as text, or ``{"path": ...}``, ``{"variable": NAME}``, ``{"run": ID}``.
        slots: Tasks that run at once.
        variables: The notebook's; a ``Dataset`` among them is read as the files it stands for.
        format, split_bytes, typed: As for ``file_splits``; ``format`` does not hold for datasets and runs.
        compute: Starts the computation of a Dask collection and returns what is pending, partition by partition; each
            comes back as the ``pending`` of a ``PendingSplit``.
        output_of: What a run wrote: a ``Dataset``, or a path.

    Raises:
        DataError: An input that is not there, or cannot be read as one.
        PlanError: A variable that the notebook does not have, or a run or collection where there is no way to it.
    """
    splits: list[Split | PendingSplit] = []
    for kind, group in groupby(map(kind_of, entries), lambda found: found[0]):
        values = [value for _, value in group]
        if kind == "path":
            splits += file_splits(values, slots, format, split_bytes, typed)
            continue
        for value in values:
            found = _variable(value, variables) if kind == "variable" else _output(value, output_of)
            splits += _splits(value, found, slots, split_bytes, typed, compute)
    return splits


def _splits(
    name: str,
    value: Any,
    slots: int,
    split_bytes: int | None,
    typed: bool,
    compute: Callable[[Any], Sequence[Any]] | None,
) -> Sequence[Split | PendingSplit]:
    if isinstance(value, Dataset):
        if not value.path.exists():
            raise DataError(f"the input {name!r} was {value.path}, which is not there any more")
        return file_splits([str(value.path)], slots, None, split_bytes, typed, value.partitions)
    if is_collection(value):
        if compute is None:
            raise PlanError(f"the input variable {name!r} is a Dask collection, which this cluster cannot compute")
        return pending_splits(name, compute(value))
    return variable_splits(name, value, slots)


def _variable(name: str, variables: Mapping[str, Any]) -> Any:
    if name not in variables:
        raise PlanError(f"the input variable {name!r} is not defined in the notebook")
    return variables[name]


def _output(run: str, output_of: Callable[[str], Any] | None) -> Any:
    if output_of is None:
        raise PlanError(f"the run {run!r} cannot be an input here: its output is not known")
    found = output_of(run)
    return found if isinstance(found, Dataset) else Dataset(Path(found), 0, 0)
