"""The panel of the run history: state, duration and a small curve of each run, and what can be done with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from paibook import stop_requests
from paibook.errors import PaibookError
from paibook.metrics import Columns
from paibook.run import RunRecord, read_output
from paibook.session import Session
from paibook.widgets.live_panel import STATIC, LivePanel, table_bundle

COLUMNS = ("id", "name", "model", "state", "started", "seconds", "curve", "error")
POINTS = 40
LOG_CHARACTERS = 20_000
BARS = "▁▂▃▄▅▆▇█"


class RunsPanel(LivePanel):
    """The latest runs.

    Args:
        session: Whose history, and who resumes and stops.
        count: How many runs.
        resume: Called with the id of a run that is to be resumed; the notebook shows it. None offers no Resume.
    """

    _esm = STATIC / "runs.js"

    def __init__(self, session: Session, count: int = 20, resume: Callable[[str], None] | None = None) -> None:
        self._session = session
        self._count = count
        self._resume = resume
        self._curves: dict[str, tuple[str, list[float]]] = {}
        self._log: dict[str, str] = {}
        super().__init__()

    def look(self) -> dict[str, Any]:
        records = list(islice(self._session.history, self._count))
        if self._log and self._log["id"] not in {record.id for record in records}:
            self._log = {}
        return {"runs": [self._row(record) for record in records], "log": self._log}

    def act(self, kind: str, content: dict[str, Any]) -> None:
        run_id = str(content.get("id", ""))
        match kind:
            case "delete":
                self._session.history.delete(self._session.history.find(run_id).id)
            case "log":
                opened = self._log.get("id") == run_id
                self._log = {} if opened else {"id": run_id, "text": self._text(run_id)}
            case "stop":
                stop_requests.ask(self._session.history.directory(self._session.history.find(run_id).id))
            case "resume" if self._resume is not None:
                self._resume(run_id)

    def static(self) -> dict[str, str]:
        rows = [
            (
                run["id"],
                run["name"],
                run["model"],
                run["state"],
                run["started"],
                f"{run['seconds']:.1f}",
                sparkline(run["curve"]),
                run["error"],
            )
            for run in self.state["runs"]
        ]
        return table_bundle(f"{len(rows)} run{'s' * (len(rows) != 1)}", COLUMNS, rows)

    def _row(self, record: RunRecord) -> dict[str, Any]:
        running = record.state == "running"
        metric, curve = self._curve(record.id, running)
        work = self._session.history.directory(record.id) / "work"
        return {
            "id": record.id,
            "name": record.name,
            "model": record.runtime,
            "state": record.state,
            "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started)),
            "seconds": round((record.ended or time.time()) - record.started, 1),
            "error": record.error,
            "metric": metric,
            "curve": curve,
            "can_stop": running,
            "can_resume": self._resume is not None and not running and record.runtime == "mapreduce" and work.is_dir(),
        }

    def _curve(self, run_id: str, running: bool) -> tuple[str, list[float]]:
        """The first metric of a run and its course; of a run that has ended, read once."""
        if run_id in self._curves:
            return self._curves[run_id]
        live = next((run for run in self._session.runs if run.id == run_id), None)
        try:
            metrics = (live.metrics if live else self._session.history.metrics(run_id)).columns()
        except (OSError, PaibookError):
            return "", []
        found = course(metrics)
        if not running:
            self._curves[run_id] = found
        return found

    def _text(self, run_id: str) -> str:
        record = self._session.history.find(run_id)
        directory = self._session.history.directory(record.id)
        parts = [read_output(directory, kind) for kind in ("stdout", "stderr")]
        text = "".join(parts) + (record.error + "\n" if record.error else "")
        return cut_log(text)


def cut_log(text: str) -> str:
    """The end of what was printed, as much of it as a panel shows."""
    cut = "" if len(text) <= LOG_CHARACTERS else f"[the last {LOG_CHARACTERS:,} characters]\n"
    return cut + text[-LOG_CHARACTERS:] or "it printed nothing"


def course(metrics: Columns) -> tuple[str, list[float]]:
    """The first metric of a run and its course on the rank that reported it first, at most ``POINTS`` finite values."""
    if not len(metrics):
        return "", []
    picked = (metrics.code == metrics.code[0]) & (metrics.rank == metrics.rank[0]) & np.isfinite(metrics.value)
    return metrics.names[metrics.code[0]], thinned(metrics.value[picked].tolist())


def thinned(values: Sequence[float], most: int = POINTS) -> list[float]:
    """At most so many of the values, evenly spread, the first and the last among them.

    >>> thinned([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """Values as a line of bars.

    >>> sparkline([3, 2, 1, 0])
    '█▆▃▁'
    """
    shown = thinned(values, width)
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in shown)
