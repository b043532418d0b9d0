"""What a cell shows while its run goes on: labelled output, progress, curves, and results at the end."""

from __future__ import annotations

import math
import queue
import sys
from typing import Any

from IPython.display import display

from paibook.attached import AttachedRun
from paibook.clusters.contract import Event
from paibook.plan import Plan
from paibook.run import Run
from paibook.runtimes.contract import Progress
from paibook.widgets.live import LiveCurves
from paibook_magics.explaining import Explaining
from paibook_magics.labelled_lines import LabelledLines
from paibook_magics.labels import label_of, label_order, merge_equal
from paibook_magics.progress import ProgressDisplay
from paibook_magics.rank_displays import RankDisplays, is_text, labelled
from paibook_magics.unfinished_lines import WAIT_SECONDS, UnfinishedLines

SHOWN_CHARACTERS = 1_000_000


class Console:
    """Collects a run's events from background threads and shows them from the cell's own.

    Args:
        grouped: Hold what ranks print until the end, and show it rank by rank.
        progress_after: Seconds before a progress bar appears.
        began: Seconds ago, of a run that has been going on.
        explaining: Shows the run's pictures in place of the progress.
    """

    def __init__(
        self,
        grouped: bool = False,
        progress_after: float = 2.0,
        began: float = 0.0,
        explaining: Explaining | None = None,
    ) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._grouped = grouped
        self._lines = LabelledLines()
        self._unfinished = UnfinishedLines()
        self._displays = RankDisplays()
        self._held: dict[str, list[tuple[str, str]]] = {}
        self._results: dict[str, dict[str, Any]] = {}
        self._shown = 0
        self._cut = False
        self._finished = False
        self._explaining = explaining
        self._progress = ProgressDisplay(progress_after if explaining is None else math.inf, began)
        self._run: Run | AttachedRun | None = None
        self._curves: LiveCurves | None = None

    def on_event(self, event: Event) -> None:
        """Take an event, from any thread; what comes after the end is in the run's log only."""
        if not self._finished:
            self._events.put(event)

    def on_progress(self, progress: Progress) -> None:
        """Take a stage's progress, from any thread."""
        self._progress.update(progress)

    def watch(self, run: Run | AttachedRun) -> None:
        """Show this run's metrics as a live curve once it logs any."""
        self._run = run
        if self._explaining is not None and isinstance(run, Run):
            self._explaining.show(run)

    def tick(self) -> None:
        """Show what has come since the last tick. Call it on the main thread, about every 50 ms."""
        self._drain()
        if not self._grouped and not self._cut:
            self._unfinished.update(self._lines.unfinished(WAIT_SECONDS))
        self._displays.tick()
        self._progress.tick()
        if self._run is not None and len(self._run.metrics):
            self._curves_of(self._run).tick()

    def finish(self) -> None:
        """Show the rest: unfinished lines, grouped output, the ranks' last expressions, the final curve."""
        self._finished = True
        self._drain()
        for stream, label, line in self._lines.rest():
            if not self._unfinished.end(stream, label, line):
                self._show(stream, label, line)
        self._unfinished.close()
        self._displays.tick(final=True)
        for label in sorted(self._held, key=label_order):
            for stream, line in self._held[label]:
                self._write(stream, f"{label}{line}\n")
        self._finish_progress()
        self._show_results()
        if self._run is not None:
            self._curves_of(self._run).finish()
            if self._run.unsaved:
                print(f"note: {self._run.unsaved}")

    def _finish_progress(self) -> None:
        if self._run is None:
            self._progress.finish()
            return
        hint = f"%pai_explain {self._run.id[-4:]} shows it step by step" if len(self._run.pictures) else ""
        self._progress.finish(self._run.state, self._run.summary, hint)

    def _curves_of(self, run: Run | AttachedRun) -> LiveCurves:
        if self._curves is None:
            self._curves = LiveCurves(run.metrics, title_of(run.plan), run.cancel)
        return self._curves

    def _drain(self) -> None:
        chunks: list[tuple[str, str]] = []
        while not self._events.empty():
            event = self._events.get()
            if event.kind in ("stdout", "stderr"):
                assert isinstance(event.data, str)
                self._take_lines(event.kind, label_of(event), event.data, chunks)
            elif event.kind in ("display", "update", "clear"):
                self._flush(chunks)
                self._take_display(event)
            elif event.kind == "result" and isinstance(event.data, dict):
                self._results[label_of(event)] = event.data
        self._flush(chunks)

    def _take_lines(self, stream: str, label: str, text: str, chunks: list[tuple[str, str]]) -> None:
        for line in self._lines.feed(stream, label, text):
            if self._grouped:
                self._held.setdefault(label, []).append((stream, line))
            elif not self._unfinished.end(stream, label, line):
                chunks.append((stream, f"{label}{line}\n"))

    def _take_display(self, event: Event) -> None:
        label = label_of(event)
        if not isinstance(event.data, dict):
            self._displays.clear(label, bool(event.metadata.get("wait")))
        elif event.kind == "update":
            self._displays.update(label, event.data, event.metadata, event.display_id)
        elif is_text(event.data) and not event.display_id:
            self._write("stdout", labelled(label, event.data)["text/plain"] + "\n")
        else:
            self._displays.show(label, event.data, event.metadata, event.display_id)

    def _flush(self, chunks: list[tuple[str, str]]) -> None:
        # Neighbouring lines of one stream leave as one message: 10,000 prints are a few dozen messages.
        start = 0
        for i in range(1, len(chunks) + 1):
            if i == len(chunks) or chunks[i][0] != chunks[start][0]:
                self._write(chunks[start][0], "".join(text for _stream, text in chunks[start:i]))
                start = i
        chunks.clear()

    def _show(self, stream: str, label: str, line: str) -> None:
        if self._grouped:
            self._held.setdefault(label, []).append((stream, line))
        else:
            self._write(stream, f"{label}{line}\n")

    def _write(self, stream: str, text: str) -> None:
        if self._cut:
            return
        room = SHOWN_CHARACTERS - self._shown
        out = sys.stdout if stream == "stdout" else sys.stderr
        if len(text) > room:
            text = text[: text.rfind("\n", 0, room) + 1]
            self._cut = True
            where = f"; more of it is in {self._run.directory / 'output.jsonl'}" if self._run is not None else ""
            text += f"… output beyond {SHOWN_CHARACTERS // 1_000_000} million characters is not shown here{where}\n"
        self._shown += len(text)
        out.write(text)
        out.flush()

    def _show_results(self) -> None:
        for label, bundle in merge_equal(self._results):
            if is_text(bundle):
                print(labelled(label, bundle)["text/plain"])
            else:
                print(label.strip())
                display(bundle, raw=True)


def title_of(plan: Plan) -> str:
    """What a run's curves are called: its name, else its magic and cell."""
    return plan.name or f"%%pai_{plan.runtime} · {plan.program.filename.removeprefix('Cell ')}"
