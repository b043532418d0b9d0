"""What is kept of one run of a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paibook.jobs.job import Job

QUEUED, RUNNING, DONE, FAILED, STOPPED, SKIPPED = "queued", "running", "done", "failed", "stopped", "skipped"
ENDED = (DONE, FAILED, STOPPED, SKIPPED)


@dataclass(frozen=True)
class JobRun:
    """One run of a job.

    Attributes:
        id: Sorts by time of making.
        job: The job as it was when the run was made.
        state: ``queued``, ``running``, ``done``, ``failed``, ``stopped`` or ``skipped``.
        due: When it was to start, seconds since the epoch; retries move it.
        cause: Why it was made: ``schedule``, ``dialog``, ``user``, ``after``, ``rerun`` or ``resume``.
        attempt: 1 for the first try.
        started, ended: Seconds since the epoch, or None.
        error: One line of what went wrong, or what a running one waits for, or empty.
        traceback: The failed cell's, without colours, or empty.
        cell: Index of the cell it is in or failed at, counted from 0; -1 before the first.
        host, pid, born: The process that runs it: its host, number, and start as ``paibook.gpus.holders.start_of``
            gives it, which setting the clock does not move.
        heartbeat: When it last said that it lives, seconds since the epoch.
        stop: Whether it has been asked to stop.
        resume: Whether it goes on with what an earlier attempt finished.
        provenance: What it ran: see ``paibook.jobs.provenance``.
    """

    id: str
    job: Job
    state: str
    due: float
    cause: str
    attempt: int = 1
    started: float | None = None
    ended: float | None = None
    error: str = ""
    traceback: str = ""
    cell: int = -1
    host: str = ""
    pid: int = 0
    born: float = 0.0
    heartbeat: float = 0.0
    stop: bool = False
    resume: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, the job included."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "job": self.job.to_dict(), "provenance": dict(self.provenance)}
