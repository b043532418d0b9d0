"""Filters: what a push or a pull carries in fewer bytes (Li et al., OSDI 2014, section 4.4).

``fp16`` rounds to 16 bits. ``int8`` sends 8 bits a value and a scale for each block of them (Dettmers, "8-bit
approximations for parallelism in deep learning", ICLR 2016; blocks as the buckets of QSGD, Alistarh et al., NIPS 2017).
``top-k`` sends the largest values only (Aji and Heafield, EMNLP 2017).

Pure functions; what a worker keeps of what was left out is in ``error_feedback``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.comms.compression import largest
from paibook.comms.wire import Channel
from paibook.errors import RunError, TableError
from paibook.runtimes.ps.messages import FP16, INT8, TOP_K

Array = NDArray[Any]
BLOCK = 64  # values that share a scale: 8.5 bits a value in all
FLAGS = {"fp16": FP16, "int8": INT8, "top-k": TOP_K}
FILTERS = FP16 | INT8 | TOP_K


def encode(flag: int, values: Array, chance: np.random.Generator | None = None, ratio: float = 1.0) -> list[Array]:
    """Values as they travel.

    Args:
        flag: FP16, INT8 or TOP_K.
        values: float32 or float64, any shape.
        chance: INT8 rounds at random by it; to the nearest where None.
        ratio: TOP_K only.

    Returns:
        C-contiguous arrays.
    """
    flat = values.reshape(-1)
    if flag == FP16:
        return [flat.astype(np.float16)]
    if flag == INT8:
        return _encode_int8(flat, chance)
    if not len(flat):
        return []
    places = np.sort(largest(np.abs(flat), ratio))
    return [places.astype(_place_type(len(flat))), flat[places]]


def decode(flag: int, parts: list[Array], count: int, dtype: np.dtype[Any]) -> Array:
    """The ``count`` values that ``encode`` made ``parts`` of, as nearly as they travel."""
    if flag == FP16:
        return parts[0].astype(dtype)
    if flag == INT8:
        scales, codes = parts
        padded = np.zeros(len(scales) * BLOCK, dtype)
        padded[:count] = codes
        by_block = padded.reshape(-1, BLOCK)
        by_block *= scales[:, None]
        return padded[:count]
    values = np.zeros(count, dtype)
    if parts:
        places, chosen = parts
        values[places] = chosen
    return values


def parts_of(flag: int, data: bytearray | Array, count: int, dtype: np.dtype[Any]) -> list[Array]:
    """The arrays that ``encode`` made of ``count`` values, found again in their bytes.

    Raises:
        RunError: The bytes are not of such values.
    """
    place_type = _place_type(count)
    kept, rest = divmod(len(data), place_type.itemsize + dtype.itemsize)
    if rest or kept > count if flag == TOP_K else len(data) != encoded_bytes(flag, count):
        raise RunError(f"{len(data)} bytes are not {count} values of {dtype} under filter {flag}")
    if flag == FP16:
        return [np.frombuffer(data, np.float16)]
    if flag == INT8:
        scales = np.frombuffer(data, np.float32, -(-count // BLOCK))
        return [scales, np.frombuffer(data, np.int8, offset=scales.nbytes)]
    places = np.frombuffer(data, place_type, kept)
    if kept and (places.min() < 0 or places.max() >= count):
        raise RunError(f"a push tells of a value that is none of the shard's {count}")
    return [places, np.frombuffer(data, dtype, offset=places.nbytes)]


def encoded_bytes(flag: int, count: int) -> int:
    """The size of ``count`` values under FP16 or INT8.

    >>> encoded_bytes(FP16, 100), encoded_bytes(INT8, 100)
    (200, 108)
    """
    return 2 * count if flag == FP16 else count + 4 * -(-count // BLOCK)


def receive(
    channel: Channel,
    flags: int,
    length: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    room: Array | None = None,
) -> Array:
    """Read a gradient of ``shape`` from a payload's last ``length`` bytes; into ``room``, if that fits it.

    Raises:
        RunError: There are not as many bytes as that takes.
    """
    count = math.prod(shape)
    flag = flags & FILTERS
    if not flag:
        if length != count * dtype.itemsize:
            raise RunError(f"a push of {length} bytes has an unexpected length")
        if room is None or room.shape != shape or room.dtype != dtype:
            return channel.receive_array(shape, dtype)
        channel.receive_into(room)
        return room
    if length > count * (8 + dtype.itemsize) + 8:
        raise RunError(f"a push of {length} bytes has an unexpected length")
    data = bytearray(length)
    channel.receive_into(data)
    return decode(flag, parts_of(flag, data, count, dtype), count, dtype).reshape(shape)


def buffer_for(flag: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Memory for what a pull of ``shape`` brings."""
    return np.empty(encoded_bytes(flag, math.prod(shape)), np.uint8) if flag else np.empty(shape, dtype)


def pulled(flag: int, data: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The rows that a pull has brought into a ``buffer_for`` them."""
    count = math.prod(shape)
    return decode(flag, parts_of(flag, data, count, dtype), count, dtype).reshape(shape) if flag else data


def checked_flag(table: str, argument: str, value: Any, dtype: np.dtype[Any], names: tuple[str, ...]) -> int:
    """The flag of a filter's name.

    Raises:
        TableError: Not one of ``names``, or a table that is not float32 or float64.
    """
    if not isinstance(value, str) or value not in names:
        shown = ", ".join(map(repr, names)) + (", pai.TopKFilter(0.01)" if "top-k" in names else "")
        raise TableError(f"table {table!r}: {argument} takes {shown} or None; got {value!r}")
    check_dtype(table, dtype)
    return FLAGS[value]


def check_dtype(table: str, dtype: np.dtype[Any]) -> None:
    """Refuse a table whose values are not to be compressed.

    Raises:
        TableError: It is not float32 or float64.
    """
    if dtype not in (np.float32, np.float64):
        raise TableError(f"table {table!r} holds {dtype}; only float32 and float64 can be compressed")


def _encode_int8(flat: Array, chance: np.random.Generator | None) -> list[Array]:
    blocks = -(-len(flat) // BLOCK)
    padded = np.zeros(blocks * BLOCK, np.float32)
    with np.errstate(over="ignore"):
        padded[: len(flat)] = flat
    by_block = padded.reshape(blocks, BLOCK)
    scales = np.abs(by_block).max(axis=1) / np.float32(127)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        by_block *= np.where(scales > 0, 1 / scales, 0)[:, None]
        # A scale too small to be inverted, of denormal numbers, or that is no number: the scale alone tells.
        by_block[~np.isfinite(by_block)] = 0
    if chance is None:
        np.rint(padded, out=padded)
    else:
        padded += chance.random(len(padded), np.float32)
        np.floor(padded, out=padded)
    np.clip(padded, -127, 127, out=padded)
    scales[~np.isfinite(scales)] = np.nan  # the whole block arrives as NaN
    return [scales, padded[: len(flat)].astype(np.int8)]


def _place_type(count: int) -> np.dtype[Any]:
    return np.dtype(np.int32 if count < 1 << 31 else np.int64)
