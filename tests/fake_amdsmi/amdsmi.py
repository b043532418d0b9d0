"""Stands in for AMD's amdsmi: answers come from the JSON file that ``FAKE_AMDSMI`` names, read at each call.

No driver is asked. The file is a list of cards: ``name``, ``hip_uuid``, ``total`` and ``used`` (MiB), ``load``,
``processes`` (pid to bytes), ``lost``. Names and forms of the answers are those of amdsmi 7.0.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_open = 0


class AmdSmiException(Exception): ...


class AmdSmiLibraryException(AmdSmiException): ...


def amdsmi_init() -> None:
    global _open
    if "FAKE_AMDSMI" not in os.environ:
        raise AmdSmiLibraryException("AMDSMI_STATUS_DRIVER_NOT_LOADED")
    _open += 1


def amdsmi_shut_down() -> None:
    global _open
    _open -= 1


def amdsmi_get_processor_handles() -> list[int]:
    return list(range(len(_cards())))


def amdsmi_get_gpu_enumeration_info(handle: int) -> dict[str, Any]:
    return {"hip_id": handle, "hip_uuid": _card(handle)["hip_uuid"]}


def amdsmi_get_gpu_asic_info(handle: int) -> dict[str, Any]:
    return {"market_name": _card(handle).get("name", "AMD Instinct MI300X")}


def amdsmi_get_gpu_vram_usage(handle: int) -> dict[str, int]:
    return {"vram_total": _card(handle).get("total", 196_592), "vram_used": _card(handle).get("used", 0)}


def amdsmi_get_gpu_activity(handle: int) -> dict[str, Any]:
    return {"gfx_activity": _card(handle).get("load", "N/A"), "umc_activity": 0, "mm_activity": "N/A"}


def amdsmi_get_gpu_process_list(handle: int) -> list[dict[str, Any]]:
    found = _card(handle).get("processes", {})
    return [{"name": "N/A", "pid": int(pid), "mem": used} for pid, used in found.items()]


def _cards() -> list[dict[str, Any]]:
    if not _open:
        raise AmdSmiLibraryException("AMDSMI_STATUS_NOT_INIT")
    return list(json.loads(Path(os.environ["FAKE_AMDSMI"]).read_text()))


def _card(handle: int) -> dict[str, Any]:
    card = _cards()[handle]
    if card.get("lost"):
        raise AmdSmiLibraryException("AMDSMI_STATUS_IO")
    return card
