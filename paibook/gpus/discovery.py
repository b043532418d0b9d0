"""The cards of this machine, as far as there is a driver and a library to ask it by."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from paibook.gpus.devices import Device, Reading

AMD_DRIVER = Path("/sys/module/amdgpu")


def discover() -> list[Device]:
    """The cards of this machine, NVIDIA's first, each in its driver's order; none where there is no driver or library.

    A card that is divided into MIG slices is given as its slices. One that does not answer is left out.
    """
    return [reading.device for reading in readings()]


def readings() -> list[Reading]:
    """The same with memory, load and processes."""
    nvml, amd = _nvml(), _amd()
    found: list[Reading] = [] if nvml is None else nvml.readings()
    if amd is not None:
        found += amd.readings(first=max((reading.device.index + 1 for reading in found), default=0))
    return found


def absent() -> str:
    """Why there are no cards here, for people."""
    if AMD_DRIVER.exists():
        if _amd() is not None:
            return "no GPU here: AMD's driver is there and finds no card"
        return "AMD's driver is here and no library to ask it by: install ROCm's, and pip install 'paibook[amd]'"
    nvml = _nvml()
    if nvml is None:
        return "no GPU can be looked for: nvidia-ml-py is not installed; pip install 'paibook[gpu]'"
    return str(nvml.absent())


def _nvml() -> ModuleType | None:
    try:
        from paibook.gpus import nvml
    except ImportError:  # nvidia-ml-py is an extra
        return None
    return nvml


def _amd() -> ModuleType | None:
    if not AMD_DRIVER.exists():  # amdsmi prints what it does not find, so it is loaded only where it can be of use
        return None
    try:
        from paibook.gpus import amd
    except (ImportError, KeyError, OSError):  # amdsmi is an extra; KeyError: ROCm's own library is not there
        return None
    return amd
