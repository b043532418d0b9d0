"""Cards as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Vendor = Literal["nvidia", "amd"]
# The variable that says which cards a process sees, by their UUIDs.
VISIBLE: dict[Vendor, str] = {"nvidia": "CUDA_VISIBLE_DEVICES", "amd": "ROCR_VISIBLE_DEVICES"}


@dataclass(frozen=True)
class Device:
    """One card, or one MIG slice of a card.

    Attributes:
        index: The card's number in the driver's order, from 0; AMD's come after NVIDIA's.
        name: For example ``"NVIDIA H200"``.
        memory: Total bytes.
        uuid: The name under which ``CUDA_VISIBLE_DEVICES`` or ``ROCR_VISIBLE_DEVICES`` finds it whatever the order.
        slice: The MIG slice's number on its card, or None for a whole card.
        vendor: Whose driver it is.
    """

    index: int
    name: str
    memory: int
    uuid: str
    slice: int | None = None
    vendor: Vendor = "nvidia"

    @property
    def label(self) -> str:
        """What people call it: ``0`` or, for a MIG slice, ``0:1``, as ``nvidia-smi`` numbers them."""
        return str(self.index) if self.slice is None else f"{self.index}:{self.slice}"


@dataclass(frozen=True)
class CardProcess:
    """A process that uses a card, and the bytes of the card's memory it takes; None where the driver does not say."""

    pid: int
    memory: int | None


@dataclass(frozen=True)
class Reading:
    """A card as it stands.

    Attributes:
        device: Which.
        used: Bytes of its memory in use, or None where the driver does not say.
        load: Percent of the last moment in which it computed; None where it is not measured, as on MIG slices.
        processes: Those that use it, by whatever program.
        gone: Whether it no longer answers: it was there before, and has fallen off the bus or been taken away.
    """

    device: Device
    used: int | None = None
    load: int | None = None
    processes: tuple[CardProcess, ...] = ()
    gone: bool = False


def environment_of(cards: Iterable[Device]) -> dict[str, str]:
    """The environment in which a process sees these cards, of each vendor that has one among them.

    >>> cards = [Device(0, "A", 1, "GPU-0"), Device(1, "B", 1, "GPU-1"), Device(2, "C", 1, "GPU-2", vendor="amd")]
    >>> environment_of(cards)
    {'CUDA_VISIBLE_DEVICES': 'GPU-0,GPU-1', 'ROCR_VISIBLE_DEVICES': 'GPU-2'}
    """
    seen: dict[str, list[str]] = {}
    for card in cards:
        seen.setdefault(VISIBLE[card.vendor], []).append(card.uuid)
    return {name: ",".join(uuids) for name, uuids in seen.items()}
