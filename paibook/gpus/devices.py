"""Cards as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """One card, or one MIG slice of a card.

    Attributes:
        index: The card's number in the driver's order, from 0.
        name: For example ``"NVIDIA H200"``.
        memory: Total bytes.
        uuid: The name under which ``CUDA_VISIBLE_DEVICES`` finds it whatever the order.
        slice: The MIG slice's number on its card, or None for a whole card.
    """

    index: int
    name: str
    memory: int
    uuid: str
    slice: int | None = None

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
