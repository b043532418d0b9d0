"""Metrics: what training code reports while it runs, as records in one append-only stream.

``log(step=3, loss=0.41)`` may be called on any rank, server or task, and in the notebook itself. Records are
batched and leave by the recorder installed for the calling context, off the hot path.
"""

from __future__ import annotations

import json
import math
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLUSH_SECONDS = 0.1
NO_STEP = -(2**63)
NOTES = "notes.jsonl"  # beside the metrics


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
        step: Training step the values belong to, a whole number of at most 63 bits.
        **values: Anything ``float()`` takes, 0-d arrays and tensors included.

    Raises:
        TypeError: A value, or the step, is not a number; the message names it.
    """
    recorder = _current.get() or _process
    if recorder is None:
        _show_locally(step, values)
        return
    recorder.record(None if step is None else _whole(step), values)


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


def _whole(step: Any) -> int:
    try:
        whole = int(step)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise TypeError(f"pai.log(step=...) takes a whole number; got {step!r}") from error
    if not NO_STEP < whole < -NO_STEP:
        raise TypeError(f"pai.log(step=...) takes a whole number of at most 63 bits; got {whole}")
    return whole


def _show_locally(step: int | None, values: dict[str, Any]) -> None:
    shown = " ".join(f"{name}={_number(name, value):.6g}" for name, value in values.items())
    print(f"step {step}: {shown}" if step is not None else shown)


@dataclass(frozen=True)
class Columns:
    """Metrics as columns of equal length, in order of arrival.

    Attributes:
        names: What the codes stand for.
        code: Which name each record has, int32.
        step: int64; ``NO_STEP`` where the caller named none.
        value: float64.
        rank: int32.
        time: float64, seconds since the epoch.
    """

    names: tuple[str, ...]
    code: NDArray[np.int32]
    step: NDArray[np.int64]
    value: NDArray[np.float64]
    rank: NDArray[np.int32]
    time: NDArray[np.float64]

    @classmethod
    def of(cls, metrics: Iterable[Metric]) -> Columns:
        """The columns of some records."""
        store = _Store()
        store.extend(list(metrics))
        return store.columns(0, None)

    def __len__(self) -> int:
        return len(self.code)


class _Store:
    """Records as growing columns: 32 bytes a record, where an object each takes five times that."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self._code, self._step, self._value = array("i"), array("q"), array("d")
        self._rank, self._time = array("i"), array("d")

    def extend(self, batch: Sequence[Metric]) -> None:
        codes = self.codes
        self._step.extend([NO_STEP if m.step is None else m.step for m in batch])
        self._code.extend([codes.setdefault(m.name, len(codes)) for m in batch])
        self._value.extend([m.value for m in batch])
        self._rank.extend([m.rank for m in batch])
        self._time.extend([m.time for m in batch])

    def columns(self, start: int, stop: int | None) -> Columns:
        import numpy as np  # whoever only logs needs it not

        # Slices are copies: an array that is looked into cannot grow.
        return Columns(
            tuple(self.codes),
            np.frombuffer(self._code[start:stop], np.int32),
            np.frombuffer(self._step[start:stop], np.int64),
            np.frombuffer(self._value[start:stop], np.float64),
            np.frombuffer(self._rank[start:stop], np.int32),
            np.frombuffer(self._time[start:stop], np.float64),
        )

    def metrics(self, run: str, start: int) -> list[Metric]:
        names = tuple(self.codes)
        rows = zip(
            self._step[start:],
            self._code[start:],
            self._value[start:],
            self._rank[start:],
            self._time[start:],
            strict=True,
        )
        return [
            Metric(run, None if step == NO_STEP else step, names[code], value, rank, when)
            for step, code, value, rank, when in rows
        ]

    def __len__(self) -> int:
        return len(self._time)

    def last(self, name: str) -> float | None:
        code = self.codes.get(name)
        for place in range(len(self._code) - 1, -1, -1) if code is not None else ():
            if self._code[place] == code:
                return self._value[place]
        return None


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody wrote beside a run while it went on.

    Attributes:
        step: The highest step reported at that moment; None before the first.
        text: As written.
        time: Seconds since the epoch.
    """

    step: int | None
    text: str
    time: float

    def to_line(self) -> str:
        """The note as one line of JSON."""
        return json.dumps(asdict(self)) + "\n"


class MetricStream:
    """Every metric of one run, in order of arrival; append-only, on disk as JSON Lines when given a path.

    Kept in memory as columns, 32 bytes a record.

    Args:
        run: Identifier stamped on the records.
        path: File to append to, one JSON object per line; None keeps the stream in memory only.
    """

    def __init__(self, run: str = "", path: Path | None = None) -> None:
        self.run = run
        self._path = path
        # Why records stopped being saved, or empty.
        self.unsaved = ""
        self._store = _Store()
        self._notes: list[Note] = []
        self._last_step: int | None = None
        self._subscribers: list[Emit] = []
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path) -> MetricStream:
        """Read a stream back; a last line cut short by a crash is left out."""
        stream = cls()
        stream._read(list(_records(path, Metric)))
        stream._notes = list(_records(path.with_name(NOTES), Note))
        return stream

    def _read(self, metrics: list[Metric]) -> None:
        if metrics:
            self.run = metrics[-1].run
            self._add(metrics)

    def _add(self, batch: Sequence[Metric]) -> None:
        self._store.extend(batch)
        steps = [m.step for m in batch if m.step is not None]
        if steps and (self._last_step is None or max(steps) > self._last_step):
            self._last_step = max(steps)

    def append(self, batch: Iterable[Metric]) -> None:
        """Stamp, store and pass on one batch."""
        batch = list(batch)
        with self._lock:
            self._add(batch)
            if self._path is not None:
                self._write(self._path, _lines(self.run, batch))
            subscribers = tuple(self._subscribers)
        if subscribers:
            stamped = [Metric(self.run, m.step, m.name, m.value, m.rank, m.time) for m in batch]
            for subscriber in subscribers:
                subscriber(stamped)

    def note(self, text: str) -> Note:
        """Write something down beside the step the run has come to; kept with the run.

        Raises:
            ValueError: There is no text.
        """
        if not text.strip():
            raise ValueError("a note needs some text")
        with self._lock:
            note = Note(self._last_step, text.strip(), time.time())
            self._keep_note(note)
        return note

    def _keep_note(self, note: Note) -> None:
        self._notes.append(note)
        if self._path is not None:
            self._write(self._path.with_name(NOTES), note.to_line())

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was written down so far, in order."""
        return tuple(self._notes)

    def _write(self, path: Path, text: str) -> None:
        try:
            with path.open("a") as file:
                file.write(text)
        except OSError as error:
            # A full disk must not end a training run; what is in memory goes on.
            self._path, self.unsaved = None, f"metrics are no longer saved: {error}"

    def subscribe(self, subscriber: Emit) -> Callable[[], None]:
        """Call ``subscriber`` with every later batch; returns the function that ends it."""
        with self._lock:
            self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber) if subscriber in self._subscribers else None

    def __iter__(self) -> Iterator[Metric]:
        return iter(self.since(0))

    def __len__(self) -> int:
        return len(self._store)

    def since(self, position: int) -> list[Metric]:
        """The records from ``position`` on; a reader that adds up their numbers misses none."""
        with self._lock:
            return self._store.metrics(self.run, position)

    def columns(self, start: int = 0, stop: int | None = None) -> Columns:
        """The records from ``start`` up to ``stop`` as columns; much faster than one by one."""
        with self._lock:
            return self._store.columns(start, stop)

    @property
    def names(self) -> tuple[str, ...]:
        """Names seen so far, in order of first appearance."""
        with self._lock:
            return tuple(self._store.codes)

    def last(self, name: str) -> float | None:
        """The latest value of ``name``, or None."""
        with self._lock:
            return self._store.last(name)

    def frame(self) -> Any:
        """The stream as a pandas DataFrame with columns run, step, name, value, rank, time."""
        import pandas

        return pandas.DataFrame([asdict(m) for m in self], columns=list(Metric.__dataclass_fields__))


def _records(path: Path, kind: type[Any]) -> Iterator[Any]:
    return records_of(path.read_text().splitlines() if path.exists() else (), kind)


def records_of(lines: Iterable[str], kind: type[Any]) -> Iterator[Any]:
    """The records of JSON Lines, ``Metric`` or ``Note``; lines that cannot be read are left out."""
    for line in lines:
        try:
            yield kind(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            continue


def _lines(run: str, batch: Sequence[Metric]) -> str:
    """JSON Lines, as ``json.dumps`` writes them and in a fifth of its time."""
    quoted = {name: json.dumps(name) for name in {m.name for m in batch}}
    run = json.dumps(run)
    return "".join(
        f'{{"run": {run}, "step": {"null" if m.step is None else m.step}, "name": {quoted[m.name]}, '
        f'"value": {_json(m.value)}, "rank": {m.rank}, "time": {m.time!r}}}\n'
        for m in batch
    )


def _json(value: float) -> str:
    return repr(value) if math.isfinite(value) else json.dumps(value)
