"""What a rank tells of its cell while that runs: where it is, what it has called, and what that has moved."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from paibook.runtimes.allreduce.member import Member
from paibook.runtimes.allreduce.whereabouts import Whereabouts

QUIET_SECONDS = 1.0  # a rank that does not communicate says nothing before
RANKS_A_TICK = 16  # of larger worlds each rank tells less often, for all of them tell one driver

Told = dict[str, Any]


def told(member: Member, filename: str, at: BaseException | FrameType | None, thread: int) -> Told:
    """How a rank stands, JSON-able.

    Args:
        member: The rank's.
        filename: What tracebacks call the cell.
        at: See ``Whereabouts.of``.
        thread: The one that runs the cell.

    Returns:
        ``line`` of the cell; ``call``, its ``number``, and the ``seconds`` for which the rank has been in it;
        ``awaited``, the rank whose message it waits for; ``count`` of collectives; ``operations``, name to count and
        bytes; ``torch``, collectives of torch's default group; ``sent``, rows of rank, messages and bytes; and what
        ``Traffic`` has: ``written``, ``read``, ``handed``, ``library_seconds``, ``waited``.
    """
    log, traffic = member.comm.calls, member.traffic
    present = log.present
    where = Whereabouts.of(log, filename, at)
    known = present is not None and where.call is not None
    words: Told = {
        "line": where.line,
        "call": None if where.call is None else where.call.described(),
        "number": 0 if where.call is None else where.call.number,
        "seconds": time.monotonic() - present[1] if known and present is not None else 0.0,
        "awaited": None if traffic is None else traffic.awaited(thread),
        "count": where.count,
        "operations": {name: list(numbers) for name, numbers in log.operations.items()},
        "torch": member.torch_operations,
        "sent": [],
    }
    if traffic is not None:
        words |= {
            "sent": [[dest, *numbers] for dest, numbers in sorted(traffic.sent.copy().items())],
            "written": traffic.written,
            "read": traffic.read,
            "handed": traffic.handed,
            "library_seconds": traffic.library_seconds,
            "waited": traffic.waited,
        }
    return words


def has_communicated(member: Member) -> bool:
    """Whether a rank has anything to show of its cell."""
    sent = member.traffic is not None and member.traffic.sent
    return bool(member.comm.calls.operations or sent or member.torch_operations)


class Teller:
    """Says how a rank stands whenever that has changed; ``look`` is called about four times a second.

    Args:
        member, filename: See ``told``; made on the thread that runs the cell.
        tell: Takes what there is to say.
    """

    def __init__(self, member: Member, filename: str, tell: Callable[[Told], None]) -> None:
        self._member, self._filename, self._tell = member, filename, tell
        self._thread = threading.get_ident()
        self._quiet_until = time.monotonic() + QUIET_SECONDS
        self._every = 1 + member.comm.size // RANKS_A_TICK
        self._ticks = 0
        self._before: Told = {}

    def look(self) -> None:
        """Tell what is new."""
        self._ticks += 1
        if self._ticks % self._every:
            return
        if time.monotonic() < self._quiet_until and not has_communicated(self._member):
            return
        words = told(self._member, self._filename, sys._current_frames().get(self._thread), self._thread)
        lasting = {**words, "seconds": 0.0}
        if lasting != self._before:
            self._before = lasting
            self._tell(words)
