"""The progress bars of a run's stages."""

from __future__ import annotations

import time
from html import escape
from typing import Any

from IPython.display import display
from tqdm import tqdm

from paibook.runtimes.contract import Progress

PROGRESS_SECONDS = 0.25


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
