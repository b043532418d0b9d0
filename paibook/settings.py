"""Settings, read once from the environment."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from paibook.errors import PaibookError


@dataclass(frozen=True)
class Settings:
    """Everything a user may set outside a cell.

    Attributes:
        runs: Folder of the run history (``PAIBOOK_RUNS``).
        cluster: Cluster reference used when a cell names none (``PAIBOOK_CLUSTER``).
        workers: Workers of the embedded cluster (``PAIBOOK_WORKERS``); the number of cores by default, at least 2.
        max_workers: How far the embedded cluster grows when a cell asks for more (``PAIBOOK_MAX_WORKERS``).
        start_timeout: Seconds a cluster may take to be ready (``PAIBOOK_START_TIMEOUT``).
        shared_memory: Whether processes of one host share memory (``PAIBOOK_SHARED_MEMORY``; 0: ranks talk through
            gloo, and parameter servers over sockets).
        leases: Folder of the lease book (``PAIBOOK_LEASES``): who holds which GPU of this machine.
        jobs: Folder of scheduled jobs and their runs (``PAIBOOK_JOBS``).
        job_run: The run of a job that this process belongs to, set by whoever carries that out (``PAIBOOK_JOB_RUN``).
    """

    runs: Path
    cluster: str
    workers: int
    max_workers: int
    start_timeout: float
    shared_memory: bool = True
    leases: Path = Path(platformdirs.user_state_dir("paibook")) / "leases"
    jobs: Path = Path("jobs")
    job_run: str = ""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Build the settings from environment variables.

        Raises:
            PaibookError: A number that is not one; names the variable.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
        default_runs = Path(platformdirs.user_data_dir("paibook")) / "runs"
        workers = _whole(environment, "PAIBOOK_WORKERS", max(2, cores))
        return cls(
            runs=Path(environment.get("PAIBOOK_RUNS") or default_runs).expanduser(),
            cluster=environment.get("PAIBOOK_CLUSTER") or "embedded",
            workers=workers,
            max_workers=_whole(environment, "PAIBOOK_MAX_WORKERS", max(16, 4 * cores, workers)),
            start_timeout=_number(environment, "PAIBOOK_START_TIMEOUT", 30.0),
            jobs=Path(
                environment.get("PAIBOOK_JOBS") or Path(platformdirs.user_data_dir("paibook")) / "jobs"
            ).expanduser(),
            shared_memory=_switch(environment, "PAIBOOK_SHARED_MEMORY", True),
            leases=Path(environment.get("PAIBOOK_LEASES") or cls.leases).expanduser(),
            job_run=environment.get("PAIBOOK_JOB_RUN", ""),
        )


@cache
def settings() -> Settings:
    """The settings of this process."""
    return Settings.read(os.environ)


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name)
    if text is None:
        return float(default)
    try:
        value = float(text)
    except ValueError as error:
        raise PaibookError(f"{name} must be a number; got {text!r}") from error
    if not 0 < value < math.inf:
        raise PaibookError(f"{name} must be above 0 and finite; got {text!r}")
    return value


def _switch(environment: Mapping[str, str], name: str, default: bool) -> bool:
    text = environment.get(name) or str(int(default))
    if text not in ("0", "1"):
        raise PaibookError(f"{name} must be 0 or 1; got {text!r}")
    return text == "1"


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    value = _number(environment, name, default)
    if not value.is_integer():
        raise PaibookError(f"{name} must be a whole number; got {environment[name]!r}")
    return int(value)
