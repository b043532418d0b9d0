"""The picture of a run before it begins: the splits of its files, the partitions of its shuffles, all tasks waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paibook.data.sources import kind_of
from paibook.data.splits import file_splits
from paibook.errors import PaibookError
from paibook.plan import Plan
from paibook.runtimes.mapreduce.driver import BUCKETS_PER_SLOT, TASKS_PER_SLOT, stage_names
from paibook.runtimes.mapreduce.options import inputs_of
from paibook.runtimes.mapreduce.outline import outline
from paibook.runtimes.mapreduce.picture import JobPicture
from paibook.runtimes.mapreduce.split_labels import split_label


def planned_picture(plan: Plan, slots: int) -> tuple[dict[str, Any], str]:
    """What would run where, and what cannot be known before it runs, in words.

    Files are looked for and cut as the run would cut them; a variable, and a file that is not there, is drawn as one
    split for each slot.

    Args:
        plan: Of a ``%%pai_mapreduce`` cell that is no query.
        slots: Tasks that would run at once.

    Raises:
        ProgramError: Its functions cannot work.
    """
    shape = outline(plan.program, sorted({entry.name for entry in inputs_of(plan.options)}))
    labels, is_certain = _labels(plan, slots)
    asked = plan.options.get("reducers")
    fixed = asked or (TASKS_PER_SLOT * slots if shape.stages[0].has_partition else None)
    names, _ = stage_names(shape, plan)
    made = JobPicture(names, {}, fixed or BUCKETS_PER_SLOT * slots, labels)
    made.begin(names[0], len(labels))
    if fixed and len(names) > 1:
        made.take_buckets([range(bucket, bucket + 1) for bucket in range(fixed)])
        made.begin(names[1], fixed)
    notes = [] if is_certain else ["how many splits there are is seen when it runs"]
    if not fixed and len(names) > 1:
        notes.append("reduce tasks take partitions so that they are of equal size")
    return made.draw(), "; ".join(notes)


def _labels(plan: Plan, slots: int) -> tuple[list[tuple[str, str]], bool]:
    labels: list[tuple[str, str]] = []
    is_certain = True
    for entry in inputs_of(plan.options):
        kind, name = kind_of(entry.entry)
        try:
            found = _cut(plan, name, slots) if kind == "path" else []
        except PaibookError:
            found = []  # the run says what is wrong
        is_certain = is_certain and bool(found)
        labels += [split_label(split) for split in found] or [(name, "")] * slots
    return labels, is_certain


def _cut(plan: Plan, pattern: str, slots: int) -> list[Any]:
    options: Mapping[str, Any] = plan.options
    return list(file_splits([pattern], slots, options.get("format")))
