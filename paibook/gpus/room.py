"""Which cards have room for one more, as pure decisions over leases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from paibook.errors import PlanError
from paibook.gpus.devices import Device
from paibook.gpus.holders import Lease
from paibook.resources import WHOLE

Policy = Literal["pack", "spread"]


def room(card: str, leases: Sequence[Lease], within: str = "") -> int:
    """Percent of a card that is free.

    Args:
        card: Its UUID.
        leases: All that hold.
        within: Id of a lease; of a card that it holds, what is free is what its parts have not taken.
    """
    here = [lease for lease in leases if lease.card == card]
    ids = {lease.id for lease in here}
    if within in ids:
        lent = sum(lease.share for lease in here if lease.id == within)
        return lent - sum(lease.share for lease in here if lease.within == within)
    # A part counts in its whole, and by itself where the whole has ended before it.
    return WHOLE - sum(lease.share for lease in here if lease.within not in ids)


def choose(
    devices: Sequence[Device],
    leases: Sequence[Lease],
    count: int,
    share: int = WHOLE,
    policy: Policy = "pack",
    within: str = "",
) -> list[Device]:
    """``count`` different cards with room for a share, those of the lease ``within`` first.

    Args:
        devices: In the driver's order.
        leases: All that hold.
        share: Percent of each; 100 is a card that nobody else holds.
        policy: ``pack``: the fullest that has room first, so that whole cards stay free. ``spread``: the
            emptiest first.

    Raises:
        PlanError: Too few have room; says who holds the others.
    """
    free = {device.uuid: room(device.uuid, leases, within) for device in devices}
    own = {lease.card for lease in leases if within and lease.id == within}
    sign = 1 if policy == "pack" else -1
    order = sorted(
        (device for device in devices if free[device.uuid] >= share),
        key=lambda device: (device.uuid not in own, sign * free[device.uuid], device.index, device.slice or 0),
    )
    if len(order) < count:
        raise PlanError(refusal([d for d in devices if free[d.uuid] < share], leases, count, share, within))
    return order[:count]


def refusal(full: Sequence[Device], leases: Sequence[Lease], count: int, share: int, within: str = "") -> str:
    """Why cards cannot be had: each that is too full, and by whom."""
    what = f"{count} {'GPU' if count == 1 else 'GPUs'}"
    asked = what if share == WHOLE else f"{share}% of {what}"
    if not full:
        return f"{asked} asked for, and this machine has fewer; ask for fewer, or run on the CPU"
    cards = "; ".join(_held(device, leases, within) for device in full)
    return f"{asked} asked for: {cards}. End what holds them, ask for a smaller share, or run on the CPU"


def _held(device: Device, leases: Sequence[Lease], within: str) -> str:
    holders = [
        str(lease.holder) + ("" if lease.share == WHOLE else f", {lease.share}%")
        for lease in leases
        if lease.card == device.uuid and lease.id != within
    ]
    return f"GPU {device.label} ({device.name}) is held by {' and '.join(holders)}"
