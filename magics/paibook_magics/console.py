"""What a cell shows while its run goes on: labelled output, progress, curves, and results at the end."""

from __future__ import annotations

import queue
import sys
import time
from html import escape
from typing import Any

from IPython.display import display
from tqdm import tqdm

from paibook.clusters.contract import Event
from paibook.plan import Plan
from paibook.run import Run
from paibook.runtimes.contract import Progress
from paibook.widgets.live import LiveCurves

SHOWN_CHARACTERS = 1_000_000
PROGRESS_SECONDS = 0.25
LONGEST_LINE = 20_000


class Console:
    """Collects a run's events from background threads and shows them from the cell's own.

    Args:
        grouped: Hold what ranks print until the end, and show it rank by rank.
        progress_after: Seconds before a progress bar appears.
    """

    def __init__(self, grouped: bool = False, progress_after: float = 2.0) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._grouped = grouped
        self._began = time.monotonic()
        self._lines = LabelledLines()
        self._held: dict[str, list[tuple[str, str]]] = {}
        self._results: dict[str, dict[str, Any]] = {}
        self._shown = 0
        self._cut = False
        self._progress = ProgressDisplay(progress_after)
        self._run: Run | None = None
        self._curves: LiveCurves | None = None

    def on_event(self, event: Event) -> None:
        """Take an event, from any thread."""
        self._events.put(event)

    def on_progress(self, progress: Progress) -> None:
        """Take a stage's progress, from any thread."""
        self._progress.update(progress)

    def watch(self, run: Run) -> None:
        """Show this run's metrics as a live curve once it logs any."""
        self._run = run

    def tick(self) -> None:
        """Show what has come since the last tick. Call it on the main thread, about every 50 ms."""
        self._drain()
        self._progress.tick()
        if self._run is not None and len(self._run.metrics):
            self._curves_of(self._run).tick()

    def finish(self) -> None:
        """Show the rest: unfinished lines, grouped output, the ranks' last expressions, the final curve."""
        self._drain()
        for stream, label, line in self._lines.rest():
            self._show(stream, label, line)
        for label in sorted(self._held, key=lambda label: (label.split()[0], _number(label))):
            for stream, line in self._held[label]:
                self._write(stream, f"{label}{line}\n")
        self._progress.finish()
        self._show_results()
        if self._run is not None:
            self._curves_of(self._run).finish()
            if self._run.unsaved:
                print(f"note: {self._run.unsaved}")

    def _curves_of(self, run: Run) -> LiveCurves:
        if self._curves is None:
            self._curves = LiveCurves(run.metrics, title_of(run.plan), run.cancel)
        return self._curves

    def _drain(self) -> None:
        chunks: list[tuple[str, str]] = []
        while not self._events.empty():
            event = self._events.get()
            if event.kind in ("stdout", "stderr"):
                assert isinstance(event.data, str)
                for line in self._lines.feed(event.kind, label_of(event), event.data):
                    if self._grouped:
                        self._held.setdefault(label_of(event), []).append((event.kind, line))
                    else:
                        chunks.append((event.kind, f"{label_of(event)}{line}\n"))
            elif event.kind == "display" and isinstance(event.data, dict):
                self._flush(chunks)
                self._display(label_of(event), event.data)
            elif event.kind == "result" and isinstance(event.data, dict):
                self._results[label_of(event)] = event.data
        self._flush(chunks)

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
            where = f"; all of it is in {self._run.directory / 'output.jsonl'}" if self._run is not None else ""
            text += f"… output beyond {SHOWN_CHARACTERS // 1_000_000} million characters is not shown here{where}\n"
        self._shown += len(text)
        out.write(text)
        out.flush()

    def _show_results(self) -> None:
        for labels, bundle in merge_equal(self._results):
            self._display(labels, bundle)

    def _display(self, label: str, bundle: dict[str, Any]) -> None:
        if any(mime != "text/plain" for mime in bundle):
            print(label.strip())
            display(bundle, raw=True)
        else:
            text = str(bundle.get("text/plain", ""))
            print(f"{label}{text}" if "\n" not in text else f"{label.strip()}\n{text}")


class LabelledLines:
    """Cuts streams into lines, each known by who wrote it; a line stays back until it is whole."""

    def __init__(self) -> None:
        self._partial: dict[tuple[str, str], str] = {}

    def feed(self, stream: str, label: str, text: str) -> list[str]:
        """Add text; returns the lines it completes. Of a line redrawn with carriage returns, the last state counts."""
        *whole, rest = (self._partial.get((stream, label), "") + text).split("\n")
        if len(rest) > LONGEST_LINE:  # an endless line is shown in pieces
            whole, rest = [*whole, rest], ""
        # A carriage return at the end stays: what follows it may redraw the line, or be the end of the line.
        self._partial[stream, label] = _last_state(rest) + "\r" * rest.endswith("\r")
        return [_last_state(line) for line in whole]

    def rest(self) -> list[tuple[str, str, str]]:
        """Stream, label and text of every unfinished line, which is thereby finished."""
        states = [(stream, label, _last_state(text)) for (stream, label), text in self._partial.items()]
        left = [state for state in states if state[2]]
        self._partial.clear()
        return left


class ProgressDisplay:
    """One bar a stage, in place, from ``after`` seconds on; standard display messages, so it is saved as it ended."""

    def __init__(self, after: float) -> None:
        self._after = after
        self._began = time.monotonic()
        self._drawn = 0.0
        self._stages: dict[str, tuple[Progress, float, float]] = {}
        self._changed = False
        self._handle: Any = None
        self._starting: str | None = None
        self._started: tuple[str, float] | None = None

    def update(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage == "start":
            self._starting = progress.unit
            self._started = (progress.unit, progress.done) if progress.done else None
            self._began = now
            return
        began = self._stages.get(progress.stage, (progress, now, now))[1]
        self._stages[progress.stage] = (progress, began, now)
        self._changed = True

    def tick(self) -> None:
        now = time.monotonic()
        if self._started is not None and self._started[1] > 0.1:
            print(f"started the {self._started[0]} cluster in {self._started[1]:.1f} s")
        if self._started is not None:
            self._started = self._starting = None
        if self._changed and now - self._began >= self._after and now - self._drawn >= PROGRESS_SECONDS:
            self._draw(now)

    def finish(self) -> None:
        self.tick()
        if self._handle is not None:
            self._handle.update({"text/plain": self.summary()}, raw=True)

    def summary(self) -> str:
        """The stages in one line, such as ``map 8 tasks · reduce 4 tasks · 3.2 s``."""
        several = len(self._stages) > 1
        stages = [f"{name} " * several + f"{p.done:,g} {p.unit}" for name, (p, _began, _last) in self._stages.items()]
        return " · ".join([*stages, f"{time.monotonic() - self._began:.1f} s"])

    def _draw(self, now: float) -> None:
        self._drawn, self._changed = now, False
        bundle = progress_bundle([(p, last - began) for p, began, last in list(self._stages.values())])
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def progress_bundle(stages: list[tuple[Progress, float]]) -> dict[str, str]:
    """Stages with their elapsed seconds as text and HTML."""
    text, rows = [], []
    for progress, seconds in stages:
        done, total = progress.done, progress.total
        if float(done).is_integer():
            done = int(done)
        meter = tqdm.format_meter(done, total, seconds, ncols=72, prefix=progress.stage, unit=" " + progress.unit)
        text.append(meter)
        bar = f'<progress style="width:16em" max="{total}" value="{done}"></progress>' if total else ""
        right = f"{done:,} / {int(total):,}" if total else f"{done:,}"
        rows.append(
            f'<tr><td style="text-align:left">{escape(progress.stage)}</td><td>{bar}</td>'
            f'<td style="text-align:right">{right} {escape(progress.unit)}</td><td>{seconds:.1f} s</td></tr>'
        )
    return {"text/plain": "\n".join(text), "text/html": f"<table>{''.join(rows)}</table>"}


def label_of(event: Event) -> str:
    """Who says it, as shown in front of each line."""
    return f"[rank {event.rank}] " if event.source == "worker" else f"[{event.source} {event.rank}] "


def title_of(plan: Plan) -> str:
    """What a run's curves are called: its name, else its magic and cell."""
    return plan.name or f"%%pai_{plan.runtime} · {plan.program.filename.removeprefix('Cell ')}"


def merge_equal(results: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Join the labels of ranks whose last expressions look the same: ``[ranks 0-3]``."""
    groups: list[tuple[list[str], dict[str, Any]]] = []
    for label in sorted(results, key=_number):
        for labels, bundle in groups:
            if bundle == results[label]:
                labels.append(label)
                break
        else:
            groups.append(([label], results[label]))
    return [(_joined(labels), bundle) for labels, bundle in groups]


def ranges(numbers: list[int]) -> str:
    """Numbers in words: ``0-2, 5``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _joined(labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"[ranks {ranges([_number(label) for label in labels])}] "


def _number(label: str) -> int:
    return int(label.strip(" []").rpartition(" ")[2])


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]
