"""What a run asks of its cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from paibook.errors import PlanError

Placement = Literal["spread", "pack"]
WHOLE = 100  # percent


@dataclass(frozen=True)
class CardChoice:
    """Which cards ranks get, and how much of them.

    Attributes:
        share: Percent of each card; 100 shares it with nobody.
        labels: The cards themselves (``"0"``, or ``"0:1"`` for a MIG slice), those of rank 0 first; empty: any.
    """

    share: int = WHOLE
    labels: tuple[str, ...] = ()

    def of_rank(self, rank: int, per_rank: int) -> tuple[str, ...]:
        """The labels of one rank's cards."""
        return self.labels[rank * per_rank : (rank + 1) * per_rank]


@dataclass(frozen=True)
class Resources:
    """Processes, cards and memory for one run.

    Attributes:
        workers: Ranks (or concurrent tasks) that do the work; 0 means "what the cluster has".
        servers: Parameter-server processes beside them.
        gpus_per_worker: Whole cards for each worker.
        memory: Bytes each worker may use, or None for no bound.
        gpu_share: Percent of each card; ranks share cards below 100.
        cards: Labels of the cards, those of rank 0 first, numbered as on the rank's own host; empty: any that are free.
        cpu_fallback: Whether to run without cards where there are none at all.
        placement: Of new ranks: ``"spread"`` over the cluster's workers, or ``"pack"`` on as few hosts as possible.
    """

    workers: int = 0
    servers: int = 0
    gpus_per_worker: int = 0
    memory: int | None = None
    placement: Placement = "spread"
    gpu_share: int = WHOLE
    cards: tuple[str, ...] = ()
    cpu_fallback: bool = False

    def __post_init__(self) -> None:
        for name in ("workers", "servers", "gpus_per_worker"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise PlanError(f"{name} must be a whole number, 0 or more; got {value!r}")
        if self.memory is not None and (not isinstance(self.memory, int) or self.memory < 1):
            raise PlanError(f"memory must be a whole number of bytes, 1 or more, or None; got {self.memory!r}")
        if self.placement not in get_args(Placement):
            raise PlanError(f"placement must be {' or '.join(get_args(Placement))}; got {self.placement!r}")
        if not isinstance(self.gpu_share, int) or not 1 <= self.gpu_share <= WHOLE:
            raise PlanError(f"gpu_share must be a whole number of percent, 1 to {WHOLE}; got {self.gpu_share!r}")
        object.__setattr__(self, "cards", tuple(self.cards))  # JSON has lists
        self._check_cards()

    @property
    def card_choice(self) -> CardChoice:
        """Which cards, and how much of them."""
        return CardChoice(self.gpu_share, self.cards)

    def _check_cards(self) -> None:
        if not self.cards:
            return
        asked = self.workers * self.gpus_per_worker
        if len(self.cards) != asked:
            raise PlanError(
                f"cards names {len(self.cards)} cards, and {self.workers} workers with {self.gpus_per_worker} each "
                f"have {asked}: name one for each, those of rank 0 first"
            )
        for rank in range(self.workers):
            mine = self.card_choice.of_rank(rank, self.gpus_per_worker)
            if len(set(mine)) < len(mine):
                raise PlanError(f"cards gives rank {rank} one card twice: {', '.join(mine)}")
