"""Results: what the last tasks give to the notebook, put together."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from paibook.errors import RunError
from paibook.runtimes.mapreduce.mistakes import UNSORTED, said
from paibook.runtimes.mapreduce.steps import Rows


class Results(dict[str, Any]):
    """The outputs of a run with several, by name; ``""`` is the main one."""


def in_order(parts: Sequence[Rows], sort: str | None = None) -> list[Any]:
    """All partitions' records in the order of their keys, else partition after partition.

    Args:
        parts: Of the partitions.
        sort: ``asc`` or ``desc`` where that order was asked for.

    Raises:
        UserCodeError: It was, and keys of different partitions cannot be compared.
    """
    lists: list[list[Any]] = [pickle.loads(part.content) for part in parts]
    joined = [record for records in lists for record in records]
    if len(parts) < 2 or any(part.keys is None for part in parts):
        return joined
    keys: list[Any] = []
    edges = [0]
    for part in parts:
        first = edges[-1]
        part_keys, ends = pickle.loads(part.keys or b"")
        keys += part_keys
        edges += [first + end for end in ends]
    if edges[-1] != len(joined):
        raise RunError("the records of a partition do not belong to its keys")
    try:
        # Each partition is sorted already, and Python's sort merges such runs.
        order = sorted(range(len(keys)), key=keys.__getitem__, reverse=sort == "desc")
    except TypeError as error:  # text in one partition, numbers in another
        if sort is not None:
            raise said("reduce", UNSORTED) from error
        return joined
    if edges == list(range(len(edges))):  # one record for each key
        return [joined[i] for i in order]
    return [record for i in order for record in joined[edges[i] : edges[i + 1]]]
