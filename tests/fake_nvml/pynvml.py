"""Stands in for nvidia-ml-py: NVML's answers come from the JSON file that ``FAKE_NVML`` names, read at each call.

Put this folder first on ``PYTHONPATH``, and every process of a test sees the same cards; write the file anew, and a
card vanishes or is loaded. No real driver is asked. The file is a list of cards: ``name``, ``uuid``, ``total``,
``used``, ``load``, ``processes`` (pid to bytes), ``slices`` (cards again), ``lost``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NVML_DEVICE_MIG_ENABLE = 1
_open = 0


class NVMLError(Exception): ...


def nvmlInit() -> None:
    global _open
    if "FAKE_NVML" not in os.environ:
        raise NVMLError("NVML Shared Library Not Found")
    _open += 1


def nvmlShutdown() -> None:
    global _open
    _open -= 1


def _cards() -> list[dict[str, Any]]:
    if not _open:
        raise NVMLError("Uninitialized")
    return list(json.loads(Path(os.environ["FAKE_NVML"]).read_text()))


def nvmlDeviceGetCount() -> int:
    return len(_cards())


def nvmlDeviceGetHandleByIndex(index: int) -> dict[str, Any]:
    card = _cards()[index]
    if card.get("lost"):
        raise NVMLError("GPU is lost")
    return card


def nvmlDeviceGetName(handle: dict[str, Any]) -> str:
    return str(handle.get("name", "NVIDIA H200"))


def nvmlDeviceGetUUID(handle: dict[str, Any]) -> str:
    return str(handle["uuid"])


def nvmlDeviceGetMemoryInfo(handle: dict[str, Any]) -> Any:
    return SimpleNamespace(total=handle.get("total", 140 * 2**30), used=handle.get("used", 0))


def nvmlDeviceGetUtilizationRates(handle: dict[str, Any]) -> Any:
    return SimpleNamespace(gpu=handle.get("load", 0), memory=0)


def nvmlDeviceGetComputeRunningProcesses(handle: dict[str, Any]) -> list[Any]:
    return [SimpleNamespace(pid=int(pid), usedGpuMemory=used) for pid, used in handle.get("processes", {}).items()]


def nvmlDeviceGetMigMode(handle: dict[str, Any]) -> list[int]:
    if "slices" not in handle:
        raise NVMLError("Not Supported")
    return [NVML_DEVICE_MIG_ENABLE, NVML_DEVICE_MIG_ENABLE]


def nvmlDeviceGetMaxMigDeviceCount(handle: dict[str, Any]) -> int:
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(handle: dict[str, Any], number: int) -> dict[str, Any]:
    if number >= len(handle["slices"]):
        raise NVMLError("Not Found")
    return dict(handle["slices"][number])
