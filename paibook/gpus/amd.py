"""The cards of this machine as AMD's driver tells of them (AMD SMI, through ``amdsmi`` 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import amdsmi

from paibook.gpus.devices import CardProcess, Device, Reading

T = TypeVar("T")
MIB = 2**20


def readings(first: int = 0) -> list[Reading]:
    """Every card, in the driver's order, with its memory, load and processes; none where there is no driver.

    Args:
        first: The number of the first one.
    """
    with _driver() as works:
        if not works:
            return []
        handles = _ask(amdsmi.amdsmi_get_processor_handles) or []
        found = [_reading(handle, first + place) for place, handle in enumerate(handles)]
    return [reading for reading in found if reading is not None]


@contextmanager
def _driver() -> Iterator[bool]:
    try:
        amdsmi.amdsmi_init()
    except amdsmi.AmdSmiException:
        yield False
        return
    try:
        yield True
    finally:
        amdsmi.amdsmi_shut_down()


def _reading(handle: Any, index: int) -> Reading | None:
    """None for a card that does not answer."""
    numbered = _ask(amdsmi.amdsmi_get_gpu_enumeration_info, handle)
    memory = _ask(amdsmi.amdsmi_get_gpu_vram_usage, handle)
    if numbered is None or memory is None:
        return None
    name = (_ask(amdsmi.amdsmi_get_gpu_asic_info, handle) or {}).get("market_name", "AMD GPU")
    load = (_ask(amdsmi.amdsmi_get_gpu_activity, handle) or {}).get("gfx_activity")
    running = _ask(amdsmi.amdsmi_get_gpu_process_list, handle) or []
    processes = tuple(CardProcess(int(process["pid"]), process["mem"]) for process in running)
    device = Device(index, name, int(memory["vram_total"]) * MIB, numbered["hip_uuid"], vendor="amd")
    # "N/A" where it is not measured.
    return Reading(device, int(memory["vram_used"]) * MIB, load if isinstance(load, int) else None, processes)


def _ask(question: Callable[..., T], *args: Any) -> T | None:
    """The driver's answer; None where the card does not know, or has gone."""
    try:
        return question(*args)
    except amdsmi.AmdSmiException:
        return None
