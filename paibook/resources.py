"""What a run asks of its cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from paibook.errors import PlanError

Placement = Literal["spread", "pack"]


@dataclass(frozen=True)
class Resources:
    """Processes, cards and memory for one run.

    Attributes:
        workers: Ranks (or concurrent tasks) that do the work; 0 means "what the cluster has".
        servers: Parameter-server processes beside them.
        gpus_per_worker: Whole cards for each worker.
        memory: Bytes each worker may use, or None for no bound.
        placement: Of new ranks: ``"spread"`` over the cluster's workers, or ``"pack"`` on as few hosts as possible.
    """

    workers: int = 0
    servers: int = 0
    gpus_per_worker: int = 0
    memory: int | None = None
    placement: Placement = "spread"

    def __post_init__(self) -> None:
        for name in ("workers", "servers", "gpus_per_worker"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise PlanError(f"{name} must be a whole number, 0 or more; got {value!r}")
        if self.memory is not None and (not isinstance(self.memory, int) or self.memory < 1):
            raise PlanError(f"memory must be a whole number of bytes, 1 or more, or None; got {self.memory!r}")
        if self.placement not in get_args(Placement):
            raise PlanError(f"placement must be {' or '.join(get_args(Placement))}; got {self.placement!r}")
