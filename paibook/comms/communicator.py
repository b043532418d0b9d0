"""The communicator: MPI's operations between the ranks of one group, under mpi4py's names.

Lower case takes and returns Python objects; upper case works in place on the memory of NumPy arrays and torch tensors,
given as such or as a spec (see ``paibook.comms.buffer_specs``). Every operation but those of ``point_to_point`` is
collective: all ranks call it, in the same order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from paibook.comms import operators
from paibook.comms.buffer_specs import one_part
from paibook.comms.buffers import same_layout
from paibook.comms.division import Divisible
from paibook.comms.errors import CommunicatorError
from paibook.comms.inbox import MAX_TAG
from paibook.comms.message_collectives import MessageCollectives
from paibook.comms.nonblocking import NonBlockingCollectives
from paibook.comms.operators import (
    ANY_SOURCE,
    ANY_TAG,
    IN_PLACE,
    PROC_NULL,
    UNDEFINED,
    Array,
    Combine,
    InPlace,
    Operator,
)

__all__ = ["MAX_TAG", "Array", "Communicator", "CommunicatorError"]


class Communicator(Divisible, MessageCollectives, NonBlockingCollectives, ABC):
    """A group of ranks as one of them sees it.

    Attributes:
        rank: This rank's number, from 0.
        size: How many ranks there are.
    """

    SUM: ClassVar[Operator] = operators.SUM
    PROD: ClassVar[Operator] = operators.PROD
    MIN: ClassVar[Operator] = operators.MIN
    MAX: ClassVar[Operator] = operators.MAX
    LAND: ClassVar[Operator] = operators.LAND
    LOR: ClassVar[Operator] = operators.LOR
    LXOR: ClassVar[Operator] = operators.LXOR
    BAND: ClassVar[Operator] = operators.BAND
    BOR: ClassVar[Operator] = operators.BOR
    BXOR: ClassVar[Operator] = operators.BXOR
    MAXLOC: ClassVar[Operator] = operators.MAXLOC
    MINLOC: ClassVar[Operator] = operators.MINLOC
    IN_PLACE: ClassVar[InPlace] = IN_PLACE
    ANY_SOURCE: ClassVar[int] = ANY_SOURCE
    ANY_TAG: ClassVar[int] = ANY_TAG
    PROC_NULL: ClassVar[int] = PROC_NULL
    UNDEFINED: ClassVar[int] = UNDEFINED

    rank: int
    size: int

    @property
    @abstractmethod
    def steps(self) -> tuple[int, int, int]:
        """Collective steps begun, messages sent and messages received so far.

        Ranks are in step with each other when the first agree and the sums of the other two are equal.
        """

    def Get_rank(self) -> int:
        """This rank's number."""
        return self.rank

    def Get_size(self) -> int:
        """How many ranks there are."""
        return self.size

    def __repr__(self) -> str:
        return f"<{type(self).__name__} rank {self.rank} of {self.size}>"

    # Objects

    @abstractmethod
    def bcast(self, obj: Any, root: int = 0) -> Any:
        """The root's object, on every rank."""

    @abstractmethod
    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """Every rank's object in rank order at the root; None elsewhere."""

    @abstractmethod
    def allgather(self, sendobj: Any) -> list[Any]:
        """Every rank's object in rank order, on every rank."""

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """The root's list dealt out: its item i goes to rank i.

        Raises:
            ValueError: The root's list has not one item per rank; raised on every rank.
        """
        self._check_rank("root", root)
        return self._scatter(self._one_each("scatter", sendobj) if self.rank == root else None, root)

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """Item i goes to rank i; gives what every rank sent here, in rank order.

        Raises:
            ValueError: A rank's list has not one item per rank; raised on every rank.
        """
        return self._alltoall(self._one_each("alltoall", sendobj))

    def reduce(self, sendobj: Any, op: Combine = SUM, root: int = 0) -> Any:
        """Every rank's object combined in rank order, at the root; None elsewhere.

        Args:
            op: An operator, or an associative function of two objects.
        """
        values = self.gather(sendobj, root)
        return None if values is None else operators.combine(op, values)

    def allreduce(self, sendobj: Any, op: Combine = SUM) -> Any:
        """Every rank's object combined in rank order, on every rank."""
        return operators.combine(op, self.allgather(sendobj))

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.Barrier()

    # Buffers

    def Bcast(self, buf: Any, root: int = 0) -> None:
        """Copy the root's buffer into every rank's."""
        self._check_rank("root", root)
        self._bcast_buffer(one_part(buf, "buf", writable=self.rank != root), root)

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM, root: int = 0) -> None:
        """Combine every rank's ``sendbuf`` elementwise into the root's ``recvbuf`` (ignored elsewhere)."""
        self._check_rank("root", root)
        self._check_operator(op)
        if self.rank != root:
            self._reduce_buffer(one_part(sendbuf, "sendbuf").copy(), op, root)
            return
        self._reduce_buffer(self._start_in(sendbuf, recvbuf), op, root)

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM) -> None:
        """Combine every rank's ``sendbuf`` elementwise into every rank's ``recvbuf``.

        ``Allreduce(IN_PLACE, buf)`` replaces ``buf`` with the result.
        """
        self._check_operator(op)
        self._allreduce_buffer(self._start_in(sendbuf, recvbuf), op)

    def Gather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Every rank's ``sendbuf`` one after another in the root's ``recvbuf`` (ignored elsewhere)."""
        self._check_rank("root", root)
        whole = self._whole(recvbuf, "recvbuf", writable=True) if self.rank == root else None
        part = self._own_part(sendbuf, whole, "sendbuf")
        self._gather_buffer(part, whole, root)

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        """Every rank's ``sendbuf`` one after another in every rank's ``recvbuf``."""
        whole = self._whole(recvbuf, "recvbuf", writable=True)
        self._allgather_buffer(self._own_part(sendbuf, whole, "sendbuf"), whole)

    def Scatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Part i of the root's ``sendbuf`` (ignored elsewhere) into rank i's ``recvbuf``."""
        self._check_rank("root", root)
        whole = self._whole(sendbuf, "sendbuf") if self.rank == root else None
        if recvbuf is IN_PLACE:
            self._scatter_buffer(whole, self._own_part(IN_PLACE, whole, "recvbuf"), root)
            return
        part = one_part(recvbuf, "recvbuf", writable=True)
        if whole is not None:
            same_layout(whole[: whole.size // self.size], part, ("a part of sendbuf", "recvbuf"))
        self._scatter_buffer(whole, part, root)

    def Alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        """Part i of ``sendbuf`` goes to rank i; ``recvbuf`` gets what every rank sent here, in rank order."""
        whole = self._whole(recvbuf, "recvbuf", writable=True)
        parts = whole.copy() if sendbuf is IN_PLACE else self._whole(sendbuf, "sendbuf")
        same_layout(parts, whole, ("sendbuf", "recvbuf"))
        self._alltoall_buffer(parts, whole)

    @abstractmethod
    def Barrier(self) -> None:
        """Wait until every rank is here."""

    @abstractmethod
    def abort(self) -> None:
        """End the group: a peer blocked in an operation gets ``CommunicatorError``. Any thread may call it."""

    # What an implementation provides. Arrays are flat and contiguous; arguments are checked already.

    @abstractmethod
    def _scatter(self, items: Sequence[Any] | ValueError | None, root: int) -> Any: ...
    @abstractmethod
    def _alltoall(self, items: Sequence[Any] | ValueError) -> list[Any]: ...
    @abstractmethod
    def _bcast_buffer(self, array: Array, root: int) -> None: ...
    @abstractmethod
    def _reduce_buffer(self, array: Array, op: Operator, root: int) -> None: ...
    @abstractmethod
    def _allreduce_buffer(self, array: Array, op: Operator) -> None: ...
    @abstractmethod
    def _gather_buffer(self, part: Array, whole: Array | None, root: int) -> None: ...
    @abstractmethod
    def _allgather_buffer(self, part: Array, whole: Array) -> None: ...
    @abstractmethod
    def _scatter_buffer(self, whole: Array | None, part: Array, root: int) -> None: ...
    @abstractmethod
    def _alltoall_buffer(self, parts: Array, whole: Array) -> None: ...

    # Checks

    def _one_each(self, operation: str, items: Sequence[Any] | None) -> Sequence[Any] | ValueError:
        # The error is handed to the peers too, who would wait for their item for ever.
        if items is None or not hasattr(items, "__len__"):
            return ValueError(
                f"{operation} takes a list of {self.size} items, one per rank; rank {self.rank} gave {items!r}"
            )
        if len(items) != self.size:
            return ValueError(f"{operation} takes {self.size} items, one per rank; rank {self.rank} gave {len(items)}")
        return items

    def _whole(self, buffer: Any, name: str, writable: bool = False) -> Array:
        array = one_part(buffer, name, writable, self.size)
        if array.size % self.size:
            raise ValueError(f"{name} must divide into {self.size} equal parts; it has {array.size} elements")
        return array

    def _own_part(self, buffer: Any, whole: Array | None, name: str) -> Array:
        if isinstance(buffer, InPlace):
            if whole is None:
                raise ValueError(f"{name} can be IN_PLACE at the root only")
            length = whole.size // self.size
            return whole[self.rank * length : (self.rank + 1) * length]
        part = one_part(buffer, name)
        if whole is not None:
            same_layout(part, whole[: whole.size // self.size], (name, "a part of the other buffer"))
        return part
