"""Which rank gets which card, as pure decisions."""

from __future__ import annotations

from collections.abc import Sequence

from paibook.errors import NoGPU, PlanError
from paibook.gpus.devices import Device


def assign(devices: Sequence[Device], ranks: int, per_rank: int) -> dict[int, list[Device]]:
    """Give every rank its own ``per_rank`` whole cards, neighbours together.

    Args:
        devices: The cards of one machine.
        ranks: Ranks on that machine.
        per_rank: Cards for each; 0 gives every rank an empty list.

    Raises:
        NoGPU: There is none.
        PlanError: There are too few; says what is there and what was asked.

    >>> cards = [Device(i, "card", 2**34, f"GPU-{i}") for i in range(4)]
    >>> [[card.index for card in cards] for cards in assign(cards, ranks=2, per_rank=2).values()]
    [[0, 1], [2, 3]]
    """
    if ranks < 0 or per_rank < 0:
        raise PlanError(f"ranks and cards per rank must be 0 or more; got {ranks} ranks with {per_rank} each")
    asked = ranks * per_rank
    if asked > len(devices):
        raise (PlanError if devices else NoGPU)(_shortage(devices, ranks, per_rank))
    return {rank: list(devices[rank * per_rank : (rank + 1) * per_rank]) for rank in range(ranks)}


def _shortage(devices: Sequence[Device], ranks: int, per_rank: int) -> str:
    asked = f"{ranks} {_plural('rank', ranks)} with {per_rank} each ({ranks * per_rank} in all) were asked for"
    if not devices:
        return f"no GPU here: {asked}; leave out -g to run on the CPU"
    there = ", ".join(f"{card.label}: {card.name}, {card.memory / 2**30:.0f} GiB" for card in devices)
    fits = len(devices) // per_rank
    advice = f"use -n {fits} or fewer" if fits else f"use -g {len(devices)} or fewer"
    here = f"{len(devices)} {_plural('GPU', len(devices))} here ({there})"
    return f"{here}: {asked}; {advice}, or leave out -g to run on the CPU"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + "s"
