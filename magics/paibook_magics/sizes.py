"""Values in a few words: type, shape and size."""

from __future__ import annotations

import sys
from typing import Any


def describe(value: Any, size: int | None = None) -> str:
    """For example ``float64[569, 30], 136.6 kB``.

    Args:
        value: Anything; arrays, tensors and frames show dtype and shape.
        size: Bytes, where they are known already.
    """
    if isinstance(value, type):  # the class of an array has no shape of its own
        return f"type, {format_bytes(sys.getsizeof(value) if size is None else size)}"
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    kind = str(dtype).removeprefix("torch.") if dtype is not None else type(value).__name__
    if isinstance(shape, tuple):
        kind += f"[{', '.join(map(str, shape))}]"
    elif isinstance(value, (list, tuple, dict, set, str, bytes)):
        kind += f"[{len(value)}]"
    return f"{kind}, {format_bytes(_bytes_of(value) if size is None else size)}"


def format_bytes(size: float) -> str:
    """Bytes with a decimal unit.

    >>> format_bytes(1500)
    '1.5 kB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _bytes_of(value: Any) -> int:
    if isinstance(nbytes := getattr(value, "nbytes", None), int):
        return nbytes
    if hasattr(value, "memory_usage"):
        usage = value.memory_usage(deep=False)
        return int(usage.sum() if hasattr(usage, "sum") else usage)
    return sys.getsizeof(value)
