"""Values in a few words: type, shape and size; and sizes, numbers and times as people write them."""

from __future__ import annotations

import re
import sys
from typing import Any

_UNITS = {"b": 1} | {
    f"{prefix}{kind}": base**power
    for power, prefix in enumerate("kmgt", 1)
    for kind, base in (("b", 1000), ("ib", 1024))
}


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


def parse_size(text: str) -> int:
    """Bytes that a size such as ``512MB`` or ``1.5 GiB`` stands for; upper and lower case alike.

    Raises:
        ValueError: No number with one of the units B, kB, MB, GB, TB, KiB, MiB, GiB, TiB; or less than one byte.

    >>> parse_size("512MB"), parse_size("2 GiB")
    (512000000, 2147483648)
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)", text.strip().lower(), re.ASCII)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"a size with its unit is expected, such as 512MB or 2GiB; got {text!r}")
    size = int(float(match[1]) * _UNITS[match[2]])
    if size < 1:
        raise ValueError(f"a size above 0 is expected, got {text!r}")
    return size


def short_bytes(size: float) -> str:
    """Bytes in two digits or so.

    >>> short_bytes(1_240_000), short_bytes(45_300_000)
    ('1.2 MB', '45 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if round(size) < 1000:
            return f"{_two_digits(size) if unit != 'B' else f'{size:.0f}'} {unit}"
        size /= 1000
    return f"{_two_digits(size)} TB"


def short_count(count: float) -> str:
    """A number of things: whole up to ten thousand, in two or three digits above.

    >>> short_count(1234), short_count(375_000), short_count(1_240_000)
    ('1,234', '375k', '1.2M')
    """
    if round(count) < 10_000:
        return f"{count:,.1f}" if 0 < count < 10 and count != int(count) else f"{count:,.0f}"
    count /= 1000
    for unit in ("k", "M"):
        if round(count) < 1000:
            return f"{_two_digits(count)}{unit}"
        count /= 1000
    return f"{_two_digits(count)}G"


def short_time(seconds: float) -> str:
    """A time span.

    >>> short_time(3.21), short_time(48.7), short_time(125), short_time(4320)
    ('3.2 s', '49 s', '2 min 05 s', '1 h 12 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def counted(count: float, thing: str) -> str:
    """A number with its noun.

    >>> counted(1, "task"), counted(1200, "task")
    ('1 task', '1,200 tasks')
    """
    return f"{short_count(count)} {thing}{'' if count == 1 else 's'}"


def _two_digits(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _bytes_of(value: Any) -> int:
    if isinstance(nbytes := getattr(value, "nbytes", None), int):
        return nbytes
    if hasattr(value, "memory_usage"):
        usage = value.memory_usage(deep=False)
        return int(usage.sum() if hasattr(usage, "sum") else usage)
    return sys.getsizeof(value)
