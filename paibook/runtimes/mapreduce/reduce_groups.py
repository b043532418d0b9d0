"""What a reduce task reduces: the keys of its partition with their values, from memory where it fits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paibook.runtimes.mapreduce.batch_tasks import mixed_blocks
from paibook.runtimes.mapreduce.column_groups import ColumnGroups
from paibook.runtimes.mapreduce.external import grouped
from paibook.runtimes.mapreduce.job import StageFunctions
from paibook.runtimes.mapreduce.largest_keys import largest_of, watched
from paibook.runtimes.mapreduce.mistakes import PAIRS, checked, explained
from paibook.runtimes.mapreduce.runs import Spills
from paibook.runtimes.mapreduce.scene import Scene
from paibook.runtimes.mapreduce.shuffle import Segment, emptying, merged, ordered
from paibook.runtimes.mapreduce.steps import Step


def items_of(
    scene: Scene, functions: StageFunctions, segments: list[Segment], folder: Path
) -> tuple[Iterator[tuple[Any, Sequence[Any]]], bool]:
    """Keys with their values, from memory where the partition fits; and whether they come in the order of keys."""
    budget, report = scene.budget, scene.report
    report.records_in = sum(segment.values for segment in segments)
    if sum(segment.memory for segment in segments) <= budget:
        return _items_in_memory(scene, functions, segments)
    found_blocks = mixed_blocks(functions, segments, scene.step.keys)
    spills = Spills()
    combine = _joining(functions, scene.where)
    found, comparable = grouped(found_blocks, budget, folder, combine, scene.step.descending, spills)
    report.spills, report.spilled_bytes = spills.runs, spills.bytes
    return watched(found, report), comparable


def _items_in_memory(
    scene: Scene, functions: StageFunctions, segments: list[Segment]
) -> tuple[Iterator[tuple[Any, Sequence[Any]]], bool]:
    descending = scene.step.descending
    if segments and all(segment.form == "groups" for segment in segments):
        groups = ColumnGroups(segments, descending)
        scene.report.largest = groups.largest()
        return iter(groups), groups.comparable
    items, comparable = ordered(merged(mixed_blocks(functions, segments, scene.step.keys)), descending)
    scene.report.largest = largest_of(items)
    return emptying(items), comparable


def _joining(functions: StageFunctions, where: str) -> Any:
    """The combiner for values of one key; None where there is none, or where it might change the key."""
    function = functions.pair_combiner
    if function is None:
        return None
    combine = checked(function, "combine", PAIRS)

    def join(key: Any, values: list[Any]) -> list[Any]:
        if len(values) < 2:
            return values
        try:
            made = list(combine(key, values))
        except (Exception, SystemExit) as error:
            raise explained(error, f"{where}, key {key!r:.80}", "combine") from error
        return [value for _, value in made] if all(k == key for k, _ in made) else values

    return join


@contextmanager
def spill_folder(step: Step) -> Iterator[Path]:
    """A folder for what does not fit into memory, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="spill-", dir=step.folder) as folder:
        yield Path(folder)
