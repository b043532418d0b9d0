"""The run history: one folder a run."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil

from paibook.attached import AttachedRun
from paibook.clusters.contract import Event
from paibook.errors import PaibookError
from paibook.metrics import MetricStream
from paibook.pictures import PICTURES, PictureLog
from paibook.plan import Plan
from paibook.run import RunRecord
from paibook.runtimes.contract import SUMMARY, Progress


class RunHistory:
    """The runs under one folder.

    Args:
        root: Made when the first run starts.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def new_directory(self, runtime: str) -> tuple[str, Path]:
        """Make the folder of a new run; returns its id and path. Readable by this user only.

        Raises:
            PaibookError: It cannot be made; says why and what to do.
        """
        run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{runtime}-{secrets.token_hex(2)}"
        directory = self.root / run_id
        try:
            directory.mkdir(parents=True, mode=0o700)
        except OSError as error:
            if directory.is_dir():  # of a hundred quick runs in a second, two draw one number now and then
                return self.new_directory(runtime)
            raise PaibookError(
                f"cannot write the run history in {self.root}: {error.strerror}; set PAIBOOK_RUNS to a folder you own"
            ) from error
        return run_id, directory

    def __iter__(self) -> Iterator[RunRecord]:
        """Records, the latest first. A run whose notebook died shows as failed."""
        for directory in sorted(self.root.glob("*"), reverse=True) if self.root.is_dir() else ():
            record = self._read(directory)
            if record is not None:
                yield record

    def find(self, run_id: str) -> RunRecord:
        """The record of a run, by its id or a unique end or beginning of it.

        Raises:
            PaibookError: None or several match; lists what is near.
        """
        records = list(self)
        exact = [r for r in records if r.id == run_id]
        matches = exact or [r for r in records if run_id and (r.id.startswith(run_id) or r.id.endswith(run_id))]
        if len(matches) == 1:
            return matches[0]
        if not matches:
            latest = ", ".join(r.id for r in records[:3]) or "none"
            raise PaibookError(f"no run is called {run_id!r}; the latest are: {latest}")
        raise PaibookError(f"{run_id!r} fits several runs: {', '.join(r.id for r in matches[:5])}")

    def attach(
        self,
        run_id: str,
        on_event: Callable[[Event], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> AttachedRun:
        """Follow a run that another process drives, or look at one that has ended.

        Args:
            run_id: As ``find_any`` takes it.
            on_event, on_progress: Called from a background thread with what it prints and how far it is.

        Raises:
            PaibookError: None or several match.
        """
        found = self.find_any(run_id)
        directory = self.directory(found.id)
        return AttachedRun(lambda: self.record(found.id), self.plan(found.id), directory, on_event, on_progress)

    def of_jobs(self, since: float) -> dict[str, RunRecord]:
        """Of each run of a job, the latest run that its notebook started at or after ``since`` (Unix seconds)."""
        latest: dict[str, RunRecord] = {}
        for record in takewhile(lambda record: record.started >= since, self):
            if record.job:
                latest.setdefault(record.job, record)
        return latest

    def record(self, run_id: str) -> RunRecord:
        """The record of a run by its whole id. Raises ``PaibookError`` where there is none."""
        record = self._read(self.directory(run_id))
        if record is None:
            raise PaibookError(f"run {run_id} is not in {self.root}")
        return record

    def find_any(self, run_id: str) -> RunRecord:
        """As ``find``; or, by the run of a job in the same way, the latest run that its notebook started."""
        try:
            return self.find(run_id)
        except PaibookError:
            fits = (r for r in self if r.job and run_id and (r.job.startswith(run_id) or r.job.endswith(run_id)))
            if (latest := next(fits, None)) is not None:
                return latest
            raise

    def directory(self, run_id: str) -> Path:
        """Folder of a run."""
        return self.root / run_id

    def plan(self, run_id: str) -> Plan:
        """The plan of a run."""
        return Plan.from_json((self.directory(run_id) / "plan.json").read_text())

    def metrics(self, run_id: str) -> MetricStream:
        """The metrics of a run."""
        return MetricStream.load(self.directory(run_id) / "metrics.jsonl")

    def pictures(self, run_id: str) -> PictureLog:
        """The pictures of a run."""
        return PictureLog(self.directory(run_id) / PICTURES)

    def summary(self, run_id: str) -> dict[str, Any] | None:
        """What a run said of itself at its end; None where it did not come so far."""
        try:
            summary: dict[str, Any] = json.loads((self.directory(run_id) / SUMMARY).read_text())
        except (OSError, ValueError):
            return None
        return summary

    def is_carried_out(self, run_id: str) -> bool:
        """Whether the process that began the run still lives, be it to tidy up."""
        record = RunRecord.load(self.directory(run_id))
        return record is not None and _is_driven(record)

    def delete(self, run_id: str) -> None:
        """Remove a run's folder. Raises ``PaibookError`` while it runs."""
        found = self.find(run_id)
        if found.state == "running":
            raise PaibookError(f"run {found.id} is still running; stop it first")
        shutil.rmtree(self.directory(found.id))

    def _read(self, directory: Path) -> RunRecord | None:
        record = RunRecord.load(directory)
        if record is None:
            return None
        if record.state == "running" and not _is_driven(record):
            who = "host process" if record.detached else "notebook"
            return replace(record, state="failed", error=f"its {who} ended before the run did")
        return record


def _is_driven(record: RunRecord) -> bool:
    try:
        process = psutil.Process(record.pid)
        # A later process may have been given the same number.
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= record.started + 1
    except psutil.NoSuchProcess:
        return False
