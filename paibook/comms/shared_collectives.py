"""Collectives in shared memory: what each rank writes and reads, turn by turn.

Three patterns carry all operations. ``stream``: ranks write, others read what they want of it (broadcast, gather,
all-gather). ``deal``: ranks write a piece for each other rank (scatter, all-to-all). ``fold``: elementwise reductions,
small ones by every rank for itself, large ones by reduce-scatter and all-gather (Rabenseifner, "Optimization of
Collective Reduction Operations", ICCS 2004), pipelined in chunks that stay in the processors' caches. An element is
always reduced in rank order, and by one rank or in the same way by all, so that every rank gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from paibook.comms.communicator import Array
from paibook.comms.operators import Operator
from paibook.comms.segment import SLOT_BYTES, Bytes, Segment

DIRECT_BYTES = 1 << 18  # up to here each rank reduces everything itself, in one turn
CHUNK_BYTES = SLOT_BYTES // 2

Open = Callable[[int, int], "Bytes | None"]


def stream(segment: Segment, text: bytes, mine: Bytes | None, opened: Open) -> None:
    """Let every rank read what the others write.

    Args:
        mine: What this rank writes, if anything.
        opened: Given a rank and how many bytes it writes, where to put them; None: this rank does not want them.
    """
    rest = _NOTHING if mine is None else mine
    segment.traffic.written += rest.size
    segment.mine[: min(rest.size, SLOT_BYTES)] = rest[:SLOT_BYTES]
    segment.begin(text, rest.size)
    lengths = segment.lengths
    targets = [(rank, target) for rank, n in enumerate(lengths) if (target := opened(rank, n)) is not None]
    longest = max(lengths)
    segment.traffic.read += sum(target.size for _, target in targets)
    _read(segment, targets, 0)
    for start in range(SLOT_BYTES, longest, SLOT_BYTES):
        part = rest[start : start + SLOT_BYTES]
        segment.mine[: part.size] = part
        segment.meet()
        _read(segment, targets, start)


def deal(segment: Segment, text: bytes, row: Sequence[Bytes], column: Sequence[Bytes], longest: int) -> None:
    """Hand ``row[i]`` to rank i, whose ``column[rank]`` takes it; either may be empty. ``longest``: of all pieces."""
    piece = SLOT_BYTES // segment.size // 64 * 64
    segment.traffic.written += sum(source.size for source in row)
    segment.traffic.read += sum(target.size for target in column)
    for start in range(0, max(longest, 1), piece):
        slot = segment.mine
        for rank, source in enumerate(row):
            part = source[start : start + piece]
            slot[rank * piece : rank * piece + part.size] = part
        if start:
            segment.meet()
        else:
            segment.begin(text)
        place = segment.rank * piece
        for slot, target in zip(segment.all, column, strict=True):
            part = target[start : start + piece]
            part[:] = slot[place : place + part.size]


def fold(segment: Segment, text: bytes, op: Operator, source: Array, target: Array | None) -> None:
    """Reduce every rank's ``source`` into ``target``, which may be the same memory; None: not wanted on this rank."""
    size = source.nbytes
    traffic = segment.traffic
    traffic.written += size
    if size <= DIRECT_BYTES:
        _fold_directly(segment, text, op, source, target)
        traffic.read += 0 if target is None else size * (segment.size - 1)
    else:
        _fold_in_parts(segment, text, op, source, target)


def check_reducible(op: Operator, dtype: np.dtype[Any]) -> None:
    """Refuse an operator that gives nothing of this dtype.

    Raises:
        TypeError: Naming both.
    """
    if (op, dtype) in _reducible or not op.is_predefined:
        return
    probe = np.zeros(1, dtype)
    try:
        _combine(op, probe, probe, probe)
    except TypeError as error:
        raise TypeError(f"{op.name} cannot reduce {dtype}: {error}") from error
    _reducible.add((op, dtype))


_NOTHING = np.empty(0, np.uint8)
_reducible: set[tuple[Operator, np.dtype[Any]]] = set()


def _combine(op: Operator, left: Array, right: Array, out: Array) -> None:
    if isinstance(op.ufunc, np.ufunc):
        op.ufunc(left, right, out=out)
    else:
        out[:] = op.arrays(left, right)


def _fold_all(op: Operator, parts: Sequence[Array], out: Array) -> None:
    first, second, *others = parts
    _combine(op, first, second, out)
    for part in others:
        _combine(op, out, part, out)


def _fold_directly(segment: Segment, text: bytes, op: Operator, source: Array, target: Array | None) -> None:
    parts = segment.starts(source.dtype, source.size)
    parts[segment.rank][:] = source
    segment.begin(text)
    if target is not None:
        _fold_all(op, parts, target)


def _fold_in_parts(segment: Segment, text: bytes, op: Operator, source: Array, target: Array | None) -> None:
    """Turn k carries the inputs of chunk k, in a slot's first half, and the results of chunk k - 1, in its second.

    The rank that reduces a part reads its own input where it is, and leaves its result in its slot of the next turn.
    """
    dtype, rank, traffic = source.dtype, segment.rank, segment.traffic
    step = CHUNK_BYTES // dtype.itemsize
    results: Array | None = None if target is None else target[:0]
    for start in range(0, source.size + step, step):
        chunk = source[start : start + step]
        ends = _ends(chunk.size, segment.size)
        low, high = ends[rank], ends[rank + 1]
        inputs = _inputs(segment.mine, dtype)
        inputs[:low] = chunk[:low]
        inputs[high : chunk.size] = chunk[high:]
        if start:
            segment.meet()
        else:
            segment.begin(text)
        slots = segment.all
        if chunk.size:
            parts = [_inputs(slot, dtype)[low:high] for slot in slots]
            parts[rank] = chunk[low:high]
            mine = _results(segment.mine, dtype)[: high - low]
            _fold_all(op, parts, mine)
            traffic.read += (segment.size - 1) * mine.nbytes + (0 if target is None else chunk.nbytes - mine.nbytes)
        if results is not None and target is not None:
            _collect(results, slots, rank, dtype)
            results = target[start : start + step]
            if chunk.size:
                results[low:high] = mine


def _collect(results: Array, slots: Sequence[Bytes], rank: int, dtype: np.dtype[Any]) -> None:
    ends = _ends(results.size, len(slots))
    for peer, slot in enumerate(slots):
        if peer != rank:
            low, high = ends[peer], ends[peer + 1]
            results[low:high] = _results(slot, dtype)[: high - low]


def _read(segment: Segment, targets: Sequence[tuple[int, Bytes]], start: int) -> None:
    slots = segment.all
    for rank, target in targets:
        part = target[start : start + SLOT_BYTES]
        part[:] = slots[rank][: part.size]


def _inputs(slot: Bytes, dtype: np.dtype[Any]) -> Array:
    return slot[: CHUNK_BYTES // dtype.itemsize * dtype.itemsize].view(dtype)


def _results(slot: Bytes, dtype: np.dtype[Any]) -> Array:
    return slot[CHUNK_BYTES : CHUNK_BYTES + CHUNK_BYTES // dtype.itemsize * dtype.itemsize].view(dtype)


def _ends(length: int, parts: int) -> list[int]:
    return [length * part // parts for part in range(parts + 1)]
