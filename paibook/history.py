"""The run history: one folder a run."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from paibook.errors import PaibookError
from paibook.metrics import MetricStream
from paibook.pictures import PICTURES, PictureLog
from paibook.plan import Plan
from paibook.run import RunRecord
from paibook.runtimes.contract import SUMMARY


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

    def delete(self, run_id: str) -> None:
        """Remove a run's folder. Raises ``PaibookError`` while it runs."""
        found = self.find(run_id)
        if found.state == "running":
            raise PaibookError(f"run {found.id} is still running; stop it first")
        shutil.rmtree(self.directory(found.id))

    def _read(self, directory: Path) -> RunRecord | None:
        try:
            record = RunRecord(**json.loads((directory / "run.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None  # not a run, or one that is just being made
        if record.state == "running" and not _is_driven(record):
            return replace(record, state="failed", error="its notebook ended before the run did")
        return record


def _is_driven(record: RunRecord) -> bool:
    try:
        process = psutil.Process(record.pid)
        # A later process may have been given the same number.
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= record.started + 1
    except psutil.NoSuchProcess:
        return False
