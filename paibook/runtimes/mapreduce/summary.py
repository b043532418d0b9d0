"""The summary of a run: its stages in numbers, counters, largest keys, bad records and outputs, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from heapq import nlargest
from pathlib import Path
from typing import Any

from paibook.runtimes.mapreduce.bad_records import BadFile
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.scheduler import StageResult

SUMMED = ("records_in", "records_out", "bytes_in", "bytes_out", "spills", "spilled_bytes")


def stage_summary(name: str, result: StageResult) -> dict[str, Any]:
    """One stage's row."""
    reports: Sequence[Report] = [done.report for done in result.done]
    sums = {field: sum(getattr(report, field) for report in reports) for field in SUMMED}
    return {
        "name": name,
        "tasks": len(reports),
        **sums,
        "seconds": round(result.seconds, 3),
        "retried": result.retried,
        "backups": result.backups,
    }


def run_summary(
    stages: Sequence[tuple[str, StageResult]],
    counters: Mapping[str, int],
    bad: Sequence[BadFile],
    bad_path: Path,
    outputs: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The whole run.

    Args:
        stages: In order.
        counters: The program's own.
        bad, bad_path: What was skipped, and the file that holds it.
        outputs: By name, with their target, rows and bytes.
    """
    keys = [key for _, result in stages for done in result.done for key in done.report.largest]
    return {
        "stages": [stage_summary(name, result) for name, result in stages],
        "seconds": round(sum(result.seconds for _, result in stages), 3),
        "counters": dict(counters),
        "largest_keys": [asdict(key) for key in nlargest(10, keys, key=lambda key: key.values)],
        "bad": {"records": sum(file.records for file in bad), "file": str(bad_path)} if bad else None,
        "outputs": {name: dict(values) for name, values in outputs.items()},
    }
