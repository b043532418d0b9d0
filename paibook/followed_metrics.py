"""The metrics of a run that another process drives, read from its folder as they are written."""

from __future__ import annotations

from pathlib import Path

from paibook.line_tail import LineTail
from paibook.metrics import NOTES, Metric, MetricStream, Note, records_of


class FollowedStream(MetricStream):
    """A metric stream that grows with the file that another process appends to.

    A note made here goes into the run's folder, and comes back from there with everybody else's.

    Args:
        run: The run's identifier.
        path: Its ``metrics.jsonl``; notes lie beside it.
    """

    def __init__(self, run: str, path: Path) -> None:
        super().__init__(run)
        self._notes_path = path.with_name(NOTES)
        self._metrics_tail = LineTail(path)
        self._notes_tail = LineTail(self._notes_path)

    def read(self) -> bool:
        """Take what was written since; False where that was nothing."""
        lines = self._metrics_tail.read()
        if batch := list(records_of(lines, Metric)):
            self.append(batch)
        with self._lock:
            self._read_notes()
        return bool(lines)

    def _keep_note(self, note: Note) -> None:
        self._write(self._notes_path, note.to_line())
        self._read_notes()  # in its place among others' notes

    def _read_notes(self) -> None:
        self._notes += records_of(self._notes_tail.read(), Note)
