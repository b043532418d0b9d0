"""The cards of this machine as NVIDIA's driver tells of them (NVML, through ``nvidia-ml-py``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pynvml

from paibook.gpus.devices import CardProcess, Device, Reading

T = TypeVar("T")


def readings() -> list[Reading]:
    """Every card, in the driver's order, with its memory, load and processes; none where there is no driver."""
    with _driver() as works:
        if not works:
            return []
        count = _ask(pynvml.nvmlDeviceGetCount) or 0
        return [reading for index in range(count) for reading in _card(index)]


def absent() -> str:
    """Why there are no cards here, for people."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"no GPU here: {error}"
    pynvml.nvmlShutdown()
    return "no GPU here: the driver is there and finds no card"


@contextmanager
def _driver() -> Iterator[bool]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # the library is there, a driver or a card is not
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def _card(index: int) -> list[Reading]:
    """One reading for a whole card, one for each slice of a divided one, none for one that fell off the bus."""
    handle = _ask(pynvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return []
    if not _is_divided(handle):
        return _reading(handle, index, None)
    numbers = range(_ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0)
    slices = [(number, _ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)) for number in numbers]
    return [reading for number, part in slices if part is not None for reading in _reading(part, index, number)]


def _is_divided(handle: Any) -> bool:
    mode = _ask(pynvml.nvmlDeviceGetMigMode, handle)  # current and, after a restart, pending; None on other cards
    return mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE


def _reading(handle: Any, index: int, number: int | None) -> list[Reading]:
    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    uuid = _ask(pynvml.nvmlDeviceGetUUID, handle)
    if memory is None or uuid is None:
        return []
    name = _ask(pynvml.nvmlDeviceGetName, handle) or "GPU"
    load = None if number is not None else _ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
    found = _ask(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    processes = tuple(CardProcess(int(process.pid), process.usedGpuMemory) for process in found)
    device = Device(index, name, int(memory.total), uuid, number)
    return [Reading(device, int(memory.used), None if load is None else int(load.gpu), processes)]


def _ask(question: Callable[..., T], *args: Any) -> T | None:
    """The driver's answer; None where the card does not know, or has gone."""
    try:
        return question(*args)
    except pynvml.NVMLError:
        return None
