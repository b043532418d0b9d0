"""Who holds cards: processes, and what each holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from paibook.errors import PaibookError

Kind = Literal["kernel", "rank", "job"]


@dataclass(frozen=True)
class Holder:
    """A process that holds cards.

    Attributes:
        kind: ``kernel``, ``rank`` or ``job``.
        name: For people, such as the notebook's path or ``worker 0``.
        pid: Its number.
        started: When it started, in the unit of ``start_of``: a later process may have the same number.
    """

    kind: Kind
    name: str
    pid: int
    started: float

    @classmethod
    def of(cls, kind: Kind, name: str, pid: int | None = None) -> Holder:
        """This process, or another of this machine.

        Raises:
            PaibookError: There is no such process.
        """
        pid = os.getpid() if pid is None else pid
        started = start_of(pid)
        if started is None:
            raise PaibookError(f"process {pid} of {kind} {name} ended before it could hold a GPU")
        return cls(kind, name, pid, started)

    def lives(self) -> bool:
        """Whether the process is still there."""
        return start_of(self.pid) == self.started

    def __str__(self) -> str:
        return f"{self.kind} {self.name} (process {self.pid})"


@dataclass(frozen=True)
class Lease:
    """One card, or a share of it, held by one process.

    Attributes:
        id: The same for all cards that were taken together.
        card: The card's UUID.
        share: Percent of the card; 100 is all of it.
        holder: Who holds it.
        since: Seconds since the epoch.
        within: The id of another lease that this one is a part of: a rank's in the lease of its kernel. Empty: none.
    """

    id: str
    card: str
    share: int
    holder: Holder
    since: float
    within: str = ""


def start_of(pid: int) -> float | None:
    """When a process started; None where it has ended. Comparable between processes of one machine only.

    On Linux in clock ticks since the machine started (proc(5), field 22 of ``stat``), which setting the clock does not
    move; elsewhere in seconds since the epoch.
    """
    try:
        # The second field is a name in parentheses, and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else float(fields[19])
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
