"""Collectives made of messages between pairs of ranks: parts of unequal size, prefixes, reductions of any kind.

They hold whatever carries the messages, and cost what the messages cost; ranks' parts are always combined in rank
order, so that every rank gets the same bits and operators need not commute.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from paibook.comms.buffer_specs import Blocks, one_part, parts
from paibook.comms.buffers import same_layout
from paibook.comms.messages import pack, unpack
from paibook.comms.operators import PREDEFINED, SUM, Array, Combine, InPlace, Operator
from paibook.comms.point_to_point import PointToPoint

SMALL_BYTES = 8192  # everybody sends all of an array to everybody: half as many messages to wait for


class MessageCollectives(PointToPoint):
    """``Gatherv`` and its relatives, ``scan``, ``Reduce_scatter``."""

    # Parts of unequal size

    def Gatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Every rank's ``sendbuf`` into its part of the root's ``recvbuf``, ``[buffer, counts, displs, datatype]``."""
        self._check_rank("root", root)
        if self.rank != root:
            self._pass(one_part(sendbuf, "sendbuf"), root)
            return
        blocks = parts(recvbuf, "recvbuf", self.size, writable=True)
        self._place_own(sendbuf, blocks)
        for rank in self._others():
            self._passed_into(blocks.of(rank), rank)

    def Scatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Part i of the root's ``sendbuf``, ``[buffer, counts, displs, datatype]``, into rank i's ``recvbuf``."""
        self._check_rank("root", root)
        if self.rank != root:
            self._passed_into(one_part(recvbuf, "recvbuf", writable=True), root)
            return
        blocks = parts(sendbuf, "sendbuf", self.size)
        if not isinstance(recvbuf, InPlace):
            own = one_part(recvbuf, "recvbuf", writable=True)
            same_layout(blocks.of(root), own, ("the root's part of sendbuf", "recvbuf"))
            own[:] = blocks.of(root)
        for rank in self._others():
            self._pass(blocks.of(rank), rank)

    def Allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Every rank's ``sendbuf`` into its part of everybody's ``recvbuf``, ``[buffer, counts, displs, datatype]``."""
        blocks = parts(recvbuf, "recvbuf", self.size, writable=True)
        self._place_own(sendbuf, blocks)
        self._circulate(blocks)

    def Alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Part i of ``sendbuf`` goes to rank i; what rank j sent here goes to part j of ``recvbuf``."""
        theirs = parts(recvbuf, "recvbuf", self.size, writable=True)
        if isinstance(sendbuf, InPlace):
            mine = Blocks(theirs.array.copy(), theirs.counts, theirs.displs)
        else:
            mine = parts(sendbuf, "sendbuf", self.size)
        same_layout(mine.of(self.rank), theirs.of(self.rank), ("this rank's part of sendbuf", "that of recvbuf"))
        theirs.of(self.rank)[:] = mine.of(self.rank)
        for step in range(1, self.size):
            to, source = (self.rank + step) % self.size, (self.rank - step) % self.size
            self._pass(mine.of(to), to)
            self._passed_into(theirs.of(source), source)

    # Reductions that leave each rank a part

    def Reduce_scatter(self, sendbuf: Any, recvbuf: Any, recvcounts: Any = None, op: Operator = SUM) -> None:
        """Combine every rank's ``sendbuf`` elementwise; rank i gets part i, of ``recvcounts[i]`` elements.

        Args:
            recvcounts: A count per rank; without it, the lengths of the ranks' ``recvbuf``.
        """
        self._check_operator(op)
        target = one_part(recvbuf, "recvbuf", writable=True)
        if recvcounts is None:
            if isinstance(sendbuf, InPlace):
                raise ValueError("Reduce_scatter with IN_PLACE needs recvcounts, a count per rank")
            recvcounts = self._lengths_of_all(target.size)
        whole = target if isinstance(sendbuf, InPlace) else one_part(sendbuf, "sendbuf")
        blocks = parts([whole, list(recvcounts)], "sendbuf", self.size)
        self._reduce_parts(blocks, target, op)

    def Reduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM) -> None:
        """Combine every rank's ``sendbuf`` elementwise; rank i gets part i of equal parts."""
        self._check_operator(op)
        target = one_part(recvbuf, "recvbuf", writable=True)
        whole = target if isinstance(sendbuf, InPlace) else one_part(sendbuf, "sendbuf")
        if whole.size % self.size:
            raise ValueError(f"sendbuf must divide into {self.size} equal parts; it has {whole.size} elements")
        self._reduce_parts(parts(whole, "sendbuf", self.size), target, op)

    # Prefixes

    def scan(self, sendobj: Any, op: Combine = SUM) -> Any:
        """The objects of ranks 0 to this one, combined."""
        total = sendobj if self.rank == 0 else op(self._object_before(), sendobj)
        self._object_on(total)
        return total

    def exscan(self, sendobj: Any, op: Combine = SUM) -> Any:
        """The objects of the ranks before this one, combined; None on rank 0."""
        before = None if self.rank == 0 else self._object_before()
        self._object_on(sendobj if self.rank == 0 else op(before, sendobj))
        return before

    def Scan(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM) -> None:
        """The ``sendbuf`` of ranks 0 to this one, combined elementwise into ``recvbuf``."""
        self._check_operator(op)
        target = self._start_in(sendbuf, recvbuf)
        if self.rank > 0:
            target[:] = op.arrays(self._array_before(target), target)
        self._array_on(target)

    def Exscan(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM) -> None:
        """The ``sendbuf`` of the ranks before this one, combined elementwise; rank 0's ``recvbuf`` is left alone."""
        self._check_operator(op)
        target = one_part(recvbuf, "recvbuf", writable=True)
        mine = target if isinstance(sendbuf, InPlace) else one_part(sendbuf, "sendbuf")
        same_layout(mine, target, ("sendbuf", "recvbuf"))
        if self.rank == 0:
            self._array_on(mine)
            return
        before = self._array_before(target)
        self._array_on(op.arrays(before, mine))
        target[:] = before

    # What other modules make collectives of

    def _allreduce_by_messages(self, array: Array, op: Operator) -> None:
        """Combine in place: of a large array each rank a part, so that twice the array goes through its connections."""
        if array.nbytes <= SMALL_BYTES:
            everything = Blocks(array, (array.size,) * self.size, (0,) * self.size)
            self._reduce_parts(everything, array, op)
            return
        blocks = parts(array, "buf", self.size)
        self._reduce_parts(blocks, blocks.of(self.rank), op)
        self._circulate(blocks)

    def _reduce_by_messages(self, array: Array, op: Operator, root: int) -> None:
        if self.rank != root:
            self._pass(array, root)
            return
        total = self._part_of(0, array)
        for rank in range(1, self.size):
            total = op.arrays(total, self._part_of(rank, array))
        array[:] = total

    def _circulate(self, blocks: Blocks) -> None:
        """Complete everybody's blocks in a ring; each rank has its own."""
        right, left = (self.rank + 1) % self.size, (self.rank - 1) % self.size
        for step in range(self.size - 1):
            self._pass(blocks.of((self.rank - step) % self.size), right)
            self._passed_into(blocks.of((self.rank - step - 1) % self.size), left)

    def _reduce_parts(self, blocks: Blocks, target: Array, op: Operator) -> None:
        own = blocks.of(self.rank)
        if target.dtype != own.dtype or target.size < own.size:
            raise ValueError(
                f"recvbuf must hold {own.size} elements of {own.dtype}; it has {target.size} of {target.dtype}"
            )
        for step in range(1, self.size):
            to = (self.rank + step) % self.size
            self._pass(blocks.of(to), to)
        total = self._part_of(0, own)
        for rank in range(1, self.size):
            total = op.arrays(total, self._part_of(rank, own))
        target[: own.size] = total

    def _part_of(self, rank: int, mine: Array) -> Array:
        """A rank's part, as long as this rank's."""
        if rank == self.rank:
            return mine
        part = np.empty_like(mine)
        self._passed_into(part, rank)
        return part

    def _place_own(self, sendbuf: Any, blocks: Blocks) -> None:
        if not isinstance(sendbuf, InPlace):
            part = one_part(sendbuf, "sendbuf")
            same_layout(part, blocks.of(self.rank), ("sendbuf", f"rank {self.rank}'s part of recvbuf"))
            blocks.of(self.rank)[:] = part

    def _lengths_of_all(self, mine: int) -> list[int]:
        lengths = np.zeros(self.size, np.int64)
        lengths[self.rank] = mine
        self._circulate(parts(lengths, "lengths", self.size))
        return [int(length) for length in lengths]

    def _others(self) -> list[int]:
        return [rank for rank in range(self.size) if rank != self.rank]

    def _object_before(self) -> Any:
        return unpack(self._passed(self.rank - 1), self.transport.token)

    def _object_on(self, value: Any) -> None:
        if self.rank + 1 < self.size:
            self._pass(pack(value, self.transport.token), self.rank + 1)

    def _array_before(self, like: Array) -> Array:
        return self._part_of(self.rank - 1, like)

    def _array_on(self, array: Array) -> None:
        if self.rank + 1 < self.size:
            self._pass(array, self.rank + 1)

    def _start_in(self, sendbuf: Any, recvbuf: Any) -> Array:
        target = one_part(recvbuf, "recvbuf", writable=True)
        if not isinstance(sendbuf, InPlace):
            source = one_part(sendbuf, "sendbuf")
            same_layout(source, target, ("sendbuf", "recvbuf"))
            target[:] = source
        return target

    def _check_operator(self, op: Any) -> None:
        if not isinstance(op, Operator):
            raise TypeError(
                f"op must be one of {', '.join(PREDEFINED)} for buffers; got {op!r}. "
                "Functions work with the lower-case reduce, allreduce and scan, or as Op.Create(function)"
            )
