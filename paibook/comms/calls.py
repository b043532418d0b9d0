"""What a rank has called on its communicator: counted and described, so that ranks that do not match can be told.

Nothing travels while all goes well. A rank that has been in one operation for a second says where it is, a rank whose
cell ends says what it called, and whoever hears from several compares them number by number.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from paibook.comms.operators import SUM, InPlace, Operator

logger = logging.getLogger(__name__)

RECENT = 32  # calls a rank remembers
PATIENCE_SECONDS = 1.0
TICK_SECONDS = 0.25

_MASK = (1 << 64) - 1

# Positions of: the buffer that has the same form on all ranks, the one that has it once a rank where that is IN_PLACE,
# the operator, and the root.
_FORMS: dict[str, tuple[int | None, int | None, int | None, int | None]] = {
    "Allreduce": (1, None, 2, None),
    "Reduce": (0, 1, 2, 3),
    "Bcast": (0, None, None, 1),
    "Allgather": (0, 1, None, None),
    "Gather": (0, 1, None, 2),
    "Scatter": (1, 0, None, 2),
    "Alltoall": (1, None, None, None),
    "bcast": (None, None, None, 1),
    "gather": (None, None, None, 1),
    "scatter": (None, None, None, 1),
    "reduce": (None, None, 1, 2),
    "allreduce": (None, None, 1, None),
}
_KEYWORDS = {
    "Bcast": ("buf", "root"),
    "bcast": ("obj", "root"),
    "gather": ("sendobj", "root"),
    "scatter": ("sendobj", "root"),
    "reduce": ("sendobj", "op", "root"),
    "allreduce": ("sendobj", "op"),
    "Gather": ("sendbuf", "recvbuf", "root"),
    "Scatter": ("sendbuf", "recvbuf", "root"),
}
_BUFFERS = ("sendbuf", "recvbuf", "op", "root")
_PER_RANK = frozenset({"Allgather", "Gather", "Scatter"})  # their whole buffer has a part for each rank

# Further collectives are compared by name alone.
COLLECTIVES = frozenset(
    {*_FORMS, "barrier", "Barrier", "allgather", "alltoall", "scan", "exscan", "Scan", "Exscan"}
    | {"Gatherv", "Scatterv", "Allgatherv", "Alltoallv", "Alltoallw", "Reduce_scatter", "Reduce_scatter_block"}
    | {"Ibarrier", "Ibcast", "Ireduce", "Iallreduce", "Igather", "Iscatter", "Iallgather", "Ialltoall"}
    | {"Split", "Dup", "Clone", "Create", "Split_type"}
)
POINT_TO_POINT = frozenset({"send", "recv", "Send", "Recv", "ssend", "Ssend", "sendrecv", "Sendrecv", "probe", "Probe"})


class Call(NamedTuple):
    """One operation.

    Attributes:
        number: Among the rank's collectives of the cell, from 1; 0 for point-to-point.
        name: As called.
        form: Element type, elements, operator and root; empty where it has none, None where it is not known.
    """

    number: int
    name: str
    form: tuple[Any, ...] | None = ()

    def __str__(self) -> str:
        return f"{self.name} #{self.number}" if self.number else self.name

    def described(self) -> str:
        """With its form: ``Allreduce of 10 float32 (SUM)``."""
        if not self.form:
            return self.name
        dtype, count, op, root = self.form
        parts = [f"of {count} {dtype}"] if dtype is not None else []
        parts += [f"({op})"] if op is not None else []
        direction = "from" if self.name.lower() in ("bcast", "scatter") else "to"
        parts += [f"{direction} root {root}"] if root is not None else []
        return " ".join([self.name, *parts])

    def matches(self, other: Call) -> bool:
        """Whether two ranks' calls of one number belong together."""
        if self.name != other.name and {self.name, other.name} != {"barrier", "Barrier"}:
            return False
        return self.form is None or other.form is None or self.form == other.form


_Words = tuple[int, str, "tuple[Any, ...] | None"]  # a Call to be: making one at every operation costs time


class CallLog:
    """One rank's calls in the present cell.

    Attributes:
        count: Collectives begun.
        digest: Of their names and forms, in order.
        exact: Whether the digest can be compared: every form was known.
        present: The operation that runs, or that an error has ended, in the words of a ``Call``, and since when (on the
            monotonic clock).
    """

    def __init__(self) -> None:
        self.reset(1)

    def reset(self, size: int) -> None:
        """Begin a cell on a group of ``size``."""
        self._size = size
        self.count = self.digest = 0
        self.exact = True
        self.present: tuple[_Words, float] | None = None
        self._recent: deque[_Words] = deque(maxlen=RECENT)
        self._kinds: dict[tuple[str, Any], list[int]] = {}  # checksum, and how many
        self._others: dict[str, int] = {}

    @property
    def recent(self) -> tuple[Call, ...]:
        """The latest collectives."""
        return tuple(Call(*words) for words in list(self._recent))

    @property
    def now(self) -> Call | None:
        """The operation that runs, or that an error has ended."""
        present = self.present
        return None if present is None else Call(*present[0])

    @property
    def operations(self) -> dict[str, tuple[int, int | None]]:
        """Operations begun, by name: how many, and bytes of the buffers they were given on this rank.

        Bytes are those of what ``Call.form`` describes; None for objects, whose size shows only on their way.
        """
        found: dict[str, tuple[int, int | None]] = {name: (count, None) for name, count in list(self._others.items())}
        for (name, form), (_, count) in list(self._kinds.items()):
            before, total = found.get(name, (0, None))
            size = _bytes_of(form)
            found[name] = before + count, total if size is None else (total or 0) + count * size
        return found

    def logged(self, name: str, find: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """An operation that notes when it begins and ends."""
        begin = self._begin_collective if name in COLLECTIVES else self._begin_other

        def run(*args: Any, **options: Any) -> Any:
            begin(name, args, options)  # the first call waits for the others to connect
            answer = find()(*args, **options)
            self.present = None  # after an error it stays, to say where that was
            return answer

        return run

    def _begin_collective(self, name: str, args: Sequence[Any], options: Mapping[str, Any]) -> None:
        self.count += 1
        form = _form(name, args, options, self._size)
        words = self.count, name, form
        self._recent.append(words)
        if form is None:
            self.exact = False
        key = (name, form)
        kind = self._kinds.get(key)
        if kind is None:
            alike = "barrier" if name == "Barrier" else name
            kind = self._kinds[key] = [zlib.crc32(repr((alike, form)).encode()), 0]
        kind[1] += 1
        self.digest = (self.digest * 1000003 + kind[0]) & _MASK
        self.present = (words, time.monotonic())

    def _begin_other(self, name: str, args: Sequence[Any], options: Mapping[str, Any]) -> None:
        self._others[name] = self._others.get(name, 0) + 1
        self.present = ((0, name, ()), time.monotonic())


@contextmanager
def watched(log: CallLog, tell: Callable[[], None]) -> Iterator[None]:
    """While the block runs, call ``tell`` once for each operation that has lasted a second; from a thread."""
    with regularly(_WatchedCell(log, tell).look):
        yield


@contextmanager
def regularly(look: Callable[[], None]) -> Iterator[None]:
    """While the block runs, call ``look`` every ``TICK_SECONDS``, from the thread that does so for all cells."""
    lookout = _lookouts.get(os.getpid()) or _lookouts.setdefault(os.getpid(), _Lookout())
    lookout.looks[id(look)] = look
    try:
        yield
    finally:
        lookout.looks.pop(id(look), None)


class _WatchedCell:
    def __init__(self, log: CallLog, tell: Callable[[], None]) -> None:
        self._log, self._tell = log, tell
        self._told: tuple[_Words, float] | None = None

    def look(self) -> None:
        present = self._log.present
        if present is None or present is self._told or time.monotonic() - present[1] <= PATIENCE_SECONDS:
            return
        self._told = present
        self._tell()


class _Lookout:
    """The process's thread that looks at the cells that run; starting one for each cell would cost more than most.

    Attributes:
        looks: What to call, by identity. Without a lock, which an interrupt might leave taken: each change is one step.
    """

    def __init__(self) -> None:
        self.looks: dict[int, Callable[[], None]] = {}
        threading.Thread(target=self._loop, name="paibook-calls", daemon=True).start()

    def _loop(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            for look in list(self.looks.values()):
                try:
                    look()
                except Exception:  # one cell's must not end the thread, which is every later cell's too
                    logger.exception("looking at a cell that runs failed")


_lookouts: dict[int, _Lookout] = {}  # by process id: a forked child has no such thread


def _form(name: str, args: Sequence[Any], options: Mapping[str, Any], size: int) -> tuple[Any, ...] | None:
    positions = _FORMS.get(name)
    if positions is None:
        return ()
    buffer, other, op, root = positions
    words = _KEYWORDS.get(name, _BUFFERS) if options else ()
    dtype = count = None
    if buffer is not None:
        found = _argument(buffer, args, options, words)
        parts = 1
        if isinstance(found, InPlace) and other is not None:
            found, parts = _argument(other, args, options, words), size if name in _PER_RANK else 1
        measured = _measure(found)
        if measured is None:
            return None
        dtype, count = measured[0], measured[1] // parts
    operator = None if op is None else _name(_argument(op, args, options, words, SUM))
    return (dtype, count, operator, None if root is None else _number(_argument(root, args, options, words, 0)))


def _argument(
    index: int, args: Sequence[Any], options: Mapping[str, Any], words: Sequence[str], default: Any = None
) -> Any:
    if index < len(args):
        return args[index]
    return options.get(words[index], default) if index < len(words) else default


def _measure(buffer: Any) -> tuple[str, int] | None:
    if type(buffer) is np.ndarray and (name := _names.get(buffer.dtype)) is not None:
        return name, buffer.size  # mostly
    dtype = getattr(buffer, "dtype", None)
    size = getattr(buffer, "size", None)
    if dtype is None or size is None:
        return None  # memoryviews, and MPI's lists of a buffer and its type
    name = _names.get(dtype)
    if name is None:
        name = _names[dtype] = str(dtype).removeprefix("torch.")
        if (item := getattr(dtype, "itemsize", None)) is not None:  # pandas has dtypes without
            _item_bytes[name] = item
    return name, int(buffer.numel()) if callable(size) else size  # a torch tensor's size is a method


_names: dict[Any, str] = {}
_item_bytes: dict[str, int] = {}


def _bytes_of(form: tuple[Any, ...] | None) -> int | None:
    if not form or form[0] not in _item_bytes:
        return None
    return int(form[1]) * _item_bytes[form[0]]


def _number(root: Any) -> int | str:
    return int(root) if isinstance(root, Integral) else str(root)


def _name(op: Any) -> str:
    return op.name if isinstance(op, Operator) else "a function"
