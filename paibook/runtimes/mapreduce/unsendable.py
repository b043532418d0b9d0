"""Unsendable pairs: whose key or value cannot travel to a reducer. Which record gave one is looked for afterwards.

Pairs are packed many at a time, when nobody knows any more where each came from, and asking for each would cost all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from paibook.data.batch import Batch
from paibook.errors import UserCodeError
from paibook.runtimes.mapreduce.mistakes import said
from paibook.runtimes.mapreduce.packing import pack
from paibook.runtimes.mapreduce.partition import partitions_of


class Unsendable(UserCodeError):
    """Something that a task's functions yielded cannot be sent."""


def unsendable(where: str, error: Exception) -> Unsendable:
    """The error of packing, or hashing, as one that names the task."""
    told = said(where, f"what map yielded cannot be sent to a reducer: {_reason(error)}")
    return Unsendable(told.where, told.name, told.message, told.traceback)


def located(
    error: Unsendable, where: str, batches: Iterable[Batch], mapper: Callable[[Any], Iterable[Any]], name: str
) -> UserCodeError:
    """The same error with the record's place, and the key or value, found by mapping the records again.

    Args:
        error: Of the whole task.
        where: The task.
        batches: Its records.
        mapper, name: The function that yielded it; it may run any number of times.
    """
    for batch in batches:
        for index, record in enumerate(batch.records):
            try:
                pairs = list(mapper(record))
            except Exception:  # a record that is skipped as bad
                continue
            for key, value in pairs:
                mistake = _mistake(key, value)
                if mistake:
                    return said(f"{where}, {batch.place(index)}", f"{name}(record) yielded the {mistake}")
    return error


def _mistake(key: Any, value: Any) -> str | None:
    try:
        partitions_of([key], 2)
        pack([key])
    except Exception as error:  # pickling and hashing run the object's own code, which may raise anything
        return f"key {_shown(key)}, which cannot be sent to a reducer: {_reason(error)}"
    try:
        pack([value])
    except Exception as error:
        return f"value {_shown(value)} for the key {_shown(key)}, which cannot be sent to a reducer: {_reason(error)}"
    return None


def _shown(value: Any) -> str:
    return f"{value!r:.80} ({type(value).__name__})"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
