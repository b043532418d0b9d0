"""The cards of this machine, as far as there is a driver and a library to ask it by."""

from __future__ import annotations

from paibook.gpus.devices import Device, Reading


def discover() -> list[Device]:
    """The cards of this machine, in the driver's order; none where there is no driver or no ``nvidia-ml-py``.

    A card that is divided into MIG slices is given as its slices. One that does not answer is left out.
    """
    return [reading.device for reading in readings()]


def readings() -> list[Reading]:
    """The same with memory, load and processes."""
    try:
        from paibook.gpus import nvml
    except ImportError:  # nvidia-ml-py is an extra
        return []
    return nvml.readings()


def absent() -> str:
    """Why there are no cards here, for people."""
    try:
        from paibook.gpus import nvml
    except ImportError:
        return "no GPU can be looked for: nvidia-ml-py is not installed; pip install 'paibook[gpu]'"
    return nvml.absent()
