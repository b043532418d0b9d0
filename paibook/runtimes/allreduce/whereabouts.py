"""Where a rank is in its cell: the line, the operation, and what it has called so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from paibook.clusters.imports import library_in_import
from paibook.comms import calls
from paibook.comms.calls import Call, CallLog

_TORCH = "torch/distributed/c10d_logger.py"  # wraps each of its collectives, as ``func``


@dataclass(frozen=True)
class Whereabouts:
    """Where one rank is in its cell.

    Attributes:
        line: The cell's line, where it is known.
        call: The operation it is in, if any.
        count, digest, exact, recent: See ``CallLog``.
        importing: The library that it is importing, during which no interrupt reaches it.
    """

    line: int | None = None
    call: Call | None = None
    count: int = 0
    digest: int = 0
    exact: bool = True
    recent: tuple[Call, ...] = ()
    importing: str | None = None

    @classmethod
    def of(cls, log: CallLog, filename: str, at: BaseException | FrameType | None) -> Whereabouts:
        """What a rank says: its log, and the error that ended the cell or the frame of the thread that runs it."""
        frames = list(_frames(at.__traceback__ if isinstance(at, BaseException) else at))
        line, call = _seen(frames, filename)
        # An error that the cell has caught leaves its operation behind; only one that comes from there is still in it.
        elsewhere = isinstance(at, Exception) and not any(f.f_code.co_filename == calls.__file__ for f, _ in frames)
        now = log.now
        if now is not None and not elsewhere:
            call = now
        importing = library_in_import(at) if isinstance(at, FrameType) else None
        return cls(line, call, log.count, log.digest, log.exact, log.recent, importing)

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**vars(self), "call": self.call, "recent": list(self.recent)}

    @classmethod
    def from_json(cls, words: Mapping[str, Any]) -> Whereabouts:
        """The inverse of ``to_json``."""
        call, recent = words["call"], words["recent"]
        return cls(**{**words, "call": call and _call(call), "recent": tuple(map(_call, recent))})

    def __str__(self) -> str:
        line = "" if self.line is None else f"line {self.line}"
        if self.call is None:
            return f"at {line}" if line else "elsewhere"
        return f"in {self.call}" + (f" ({line})" if line else "")


def _frames(at: TracebackType | FrameType | None) -> Iterator[tuple[FrameType, int]]:
    """Frames and their lines, the outermost first."""
    if isinstance(at, FrameType):
        stack = []
        frame: FrameType | None = at
        while frame is not None:
            stack.append((frame, frame.f_lineno))
            frame = frame.f_back
        yield from reversed(stack)
        return
    while at is not None:
        yield at.tb_frame, at.tb_lineno
        at = at.tb_next


def _seen(frames: Sequence[tuple[FrameType, int]], filename: str) -> tuple[int | None, Call | None]:
    line = call = None
    for frame, number in frames:
        if frame.f_code.co_filename == filename:
            line, call = number, None
        elif call is None and line is not None and frame.f_code.co_filename.endswith(_TORCH):
            call = Call(0, f"torch.distributed's {getattr(frame.f_locals.get('func'), '__name__', 'operation')}")
    return line, call


def _call(words: Any) -> Call:
    number, name, form = words
    return Call(number, name, None if form is None else tuple(form))
