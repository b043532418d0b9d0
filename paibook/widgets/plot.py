"""Looking at runs that have ended, one or several together: ``run.plot()`` and ``pai.compare(run1, run2)``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paibook.errors import PaibookError
from paibook.metrics import MetricStream
from paibook.run import Run, RunRecord
from paibook.session import current
from paibook.widgets.decimation import History
from paibook.widgets.export import FORMATS, export
from paibook.widgets.figure import Notes, bundle_of, table

if TYPE_CHECKING:
    from paibook.widgets.curves import Curves


class Plot:
    """Metrics of runs as a picture that a saved notebook keeps; the same runs to look into, or as a file.

    Args:
        streams: Runs by label.
        title: Shown above the curves.
    """

    def __init__(self, streams: Mapping[str, MetricStream], title: str = "") -> None:
        self.streams = dict(streams)
        self.title = title

    def widget(self, **view: Any) -> Curves:
        """Curves to zoom, smooth and filter. They need the kernel: a saved notebook keeps the picture only.

        Args:
            **view: ``axis`` ("step", "epoch", "time"), ``by_rank``, ``log``, ``smoothing`` (0 to 0.99), ``zoom`` (low
                and high), ``filter`` (part of a name), ``overlays`` (lists of names that share a panel).
        """
        from paibook.widgets.curves import Curves  # anywidget takes a while to import

        widget = Curves(self.streams, self.title, **view)
        widget.show_all(running=False)
        return widget

    def figure(self, **options: Any) -> Any:
        """A matplotlib figure; see ``paibook.widgets.paper.figure``."""
        from paibook.widgets.paper import figure

        return figure(self.streams, **options)

    def save(self, path: str | Path) -> Path:
        """Write a file; its ending says which: ``.png``, ``.svg``, or every report as ``.csv`` or ``.parquet``.

        Raises:
            PaibookError: The ending is none of these.
        """
        path = Path(path)
        kind = path.suffix.removeprefix(".").lower()
        if kind not in FORMATS:
            raise PaibookError(
                f"cannot save {path.name!r}: a file's name ends in {', '.join('.' + f for f in FORMATS)}"
            )
        path.write_bytes(export(self.streams, kind, self.title))
        return path

    def bundle(self) -> dict[str, Any]:
        """The picture as a MIME bundle: Vega-Lite, SVG and plain text."""
        runs = {label: History(stream.columns()) for label, stream in self.streams.items()}
        notes: Notes = [
            (note.step or 0, f"{label}: {note.text}" if len(self.streams) > 1 else note.text)
            for label, stream in self.streams.items()
            for note in stream.notes
        ]
        return bundle_of(runs, self.title, notes)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return self.bundle()

    def __repr__(self) -> str:
        return table({label: History(stream.columns()) for label, stream in self.streams.items()}, self.title)


def compare(*runs: Run | RunRecord | str, title: str = "") -> Plot:
    """Draw the metrics of several runs together, one colour a run.

    Args:
        *runs: Runs, their records, names (the latest run of that name), or ids (a unique end or beginning will do).
        title: Shown above the curves.

    Raises:
        PaibookError: No run is given, or none is called so.
    """
    if not runs:
        raise PaibookError("pai.compare() takes runs or their ids: pai.compare(run1, run2); `%pai_runs` lists them")
    streams: dict[str, MetricStream] = {}
    for run in runs:
        record, stream = (run.record, run.metrics) if isinstance(run, Run) else _kept(run)
        label = record.name or record.id
        streams[f"{label} {record.id[-4:]}" if label in streams else label] = stream
    return Plot(streams, title or " and ".join(streams) if len(streams) < 4 else title or f"{len(streams)} runs")


def _kept(run: RunRecord | str) -> tuple[RunRecord, MetricStream]:
    if not isinstance(run, RunRecord | str):
        raise PaibookError(f"pai.compare() takes runs or their ids; got {type(run).__name__}")
    history = current().history
    if isinstance(run, str):
        # Of several runs with one name, the latest is meant; ids are never names.
        run = next((record for record in history if record.name == run), None) or history.find(run)
    return run, history.metrics(run.id)
