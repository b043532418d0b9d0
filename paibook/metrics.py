"""Metrics: what training code reports while it runs, as records in one append-only stream.

``log(step=3, loss=0.41)`` may be called on any rank, server or task, and in the notebook itself. Records are
batched and leave by the recorder installed for the calling context, off the hot path.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FLUSH_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Metric:
    """One number reported once.

    Attributes:
        run: Identifier of the run, empty until the run's stream stamps it.
        step: The training step, or None when the caller named none.
        name: For example ``"loss"``.
        value: The number; NaN and infinities are kept.
        rank: Which rank reported it; -1 is the notebook process.
        time: Seconds since the epoch.
    """

    run: str
    step: int | None
    name: str
    value: float
    rank: int
    time: float


Emit = Callable[[list[Metric]], None]


class Recorder:
    """Collects metrics and hands them on in batches, at most every ``FLUSH_SECONDS``.

    Args:
        emit: Called with each batch, from a background thread or from ``flush``.
        rank: Stamped on every record.
    """

    def __init__(self, emit: Emit, rank: int = -1) -> None:
        self.rank = rank
        self._emit = emit
        self._pending: list[Metric] = []
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._timer: threading.Timer | None = None

    def record(self, step: int | None, values: dict[str, Any]) -> None:
        """Queue one record per value."""
        now = time.time()
        batch = [Metric("", step, name, _number(name, value), self.rank, now) for name, value in values.items()]
        with self._lock:
            self._pending.extend(batch)
            if self._timer is None:
                self._timer = threading.Timer(FLUSH_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Send what is queued now, in order."""
        with self._sending:
            with self._lock:
                batch, self._pending = self._pending, []
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = None
            if batch:
                self._emit(batch)


_current: ContextVar[Recorder | None] = ContextVar("paibook_recorder", default=None)
_process: Recorder | None = None


def log(step: int | None = None, **values: Any) -> None:
    """Report numbers from training code: ``log(step=i, loss=loss, accuracy=acc)``.

    Args:
        step: Training step the values belong to.
        **values: Anything ``float()`` takes, 0-d arrays and tensors included.

    Raises:
        TypeError: A value is not a number; the message names it.
    """
    recorder = _current.get() or _process
    if recorder is None:
        _show_locally(step, values)
        return
    recorder.record(None if step is None else int(step), values)


@contextmanager
def recording(recorder: Recorder, whole_process: bool = False) -> Iterator[Recorder]:
    """Send what ``log`` gets in this context (or in the whole process) to ``recorder``; flush at the end."""
    global _process
    token = _current.set(recorder)
    previous = _process
    if whole_process:
        _process = recorder
    try:
        yield recorder
    finally:
        _current.reset(token)
        if whole_process:
            _process = previous
        recorder.flush()


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # torch raises the last
        raise TypeError(f"pai.log({name}=...) takes a number; got {type(value).__name__}") from error


def _show_locally(step: int | None, values: dict[str, Any]) -> None:
    shown = " ".join(f"{name}={_number(name, value):.6g}" for name, value in values.items())
    print(f"step {step}: {shown}" if step is not None else shown)


class MetricStream:
    """Every metric of one run, in order of arrival; append-only, on disk as JSON Lines when given a path.

    Args:
        run: Identifier stamped on the records.
        path: File to append to, one JSON object per line; None keeps the stream in memory only.
    """

    def __init__(self, run: str = "", path: Path | None = None) -> None:
        self.run = run
        self._path = path
        # Why records stopped being saved, or empty.
        self.unsaved = ""
        self._metrics: list[Metric] = []
        self._subscribers: list[Emit] = []
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path) -> MetricStream:
        """Read a stream back; a last line cut short by a crash is left out."""
        stream = cls()
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                metric = Metric(**json.loads(line))
            except (json.JSONDecodeError, TypeError):
                continue
            stream.run = metric.run
            stream._metrics.append(metric)
        return stream

    def append(self, batch: Sequence[Metric]) -> None:
        """Stamp, store and pass on one batch."""
        stamped = [Metric(self.run, m.step, m.name, m.value, m.rank, m.time) for m in batch]
        with self._lock:
            self._metrics.extend(stamped)
            self._save(stamped)
            subscribers = tuple(self._subscribers)
        for subscriber in subscribers:
            subscriber(stamped)

    def _save(self, batch: Sequence[Metric]) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a") as file:
                file.writelines(json.dumps(asdict(m)) + "\n" for m in batch)
        except OSError as error:
            # A full disk must not end a training run; what is in memory goes on.
            self._path, self.unsaved = None, f"metrics are no longer saved: {error}"

    def subscribe(self, subscriber: Emit) -> Callable[[], None]:
        """Call ``subscriber`` with every later batch; returns the function that ends it."""
        with self._lock:
            self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber) if subscriber in self._subscribers else None

    def __iter__(self) -> Iterator[Metric]:
        with self._lock:
            return iter(tuple(self._metrics))

    def __len__(self) -> int:
        return len(self._metrics)

    def since(self, position: int) -> list[Metric]:
        """The records from ``position`` on; a reader that adds up their numbers misses none."""
        with self._lock:
            return self._metrics[position:]

    @property
    def names(self) -> tuple[str, ...]:
        """Names seen so far, in order of first appearance."""
        return tuple(dict.fromkeys(metric.name for metric in self))

    def last(self, name: str) -> float | None:
        """The latest value of ``name``, or None."""
        return next((m.value for m in reversed(tuple(self)) if m.name == name), None)

    def frame(self) -> Any:
        """The stream as a pandas DataFrame with columns run, step, name, value, rank, time."""
        import pandas

        return pandas.DataFrame([asdict(m) for m in self], columns=list(Metric.__dataclass_fields__))
