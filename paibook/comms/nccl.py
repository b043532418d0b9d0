"""A communicator for ranks with a GPU each: CUDA tensors by NCCL, everything else as ``gloo`` does it."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
import torch.distributed as dist

from paibook.comms.communicator import CommunicatorError
from paibook.comms.gloo import CONNECT_TIMEOUT, POLL_SECONDS, TorchCommunicator
from paibook.comms.operators import MAX, MIN, PROD, SUM, InPlace, Operator
from paibook.comms.rendezvous import Meeting

_OPERATORS: dict[Operator, Any] = {
    SUM: dist.ReduceOp.SUM,
    PROD: dist.ReduceOp.PRODUCT,
    MIN: dist.ReduceOp.MIN,
    MAX: dist.ReduceOp.MAX,
}


class NcclCommunicator(TorchCommunicator):
    """A group that also takes CUDA tensors in ``Allreduce``, ``Reduce``, ``Bcast`` and ``Allgather``.

    They must be contiguous and on the card that is the rank's own; see ``TorchCommunicator`` for the arguments.
    """

    def __init__(self, rank: int, size: int, meeting: Meeting, name: str) -> None:
        super().__init__(rank, size, meeting, name)
        self._name = name
        self._cards: Any = None

    def abort(self) -> None:
        super().abort()
        cards, self._cards = getattr(self, "_cards", None), None
        if cards is not None:
            cards.abort()

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM) -> None:
        if not _on_card(recvbuf):
            super().Allreduce(sendbuf, recvbuf, op)
            return
        options = dist.AllreduceOptions()
        options.reduceOp = _operator(op)
        target = _begun_in(sendbuf, recvbuf)
        self._on_cards("Allreduce", target.nbytes, lambda cards: cards.allreduce([target], options))

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM, root: int = 0) -> None:
        given = recvbuf if self.rank == root else sendbuf
        if not _on_card(given):
            super().Reduce(sendbuf, recvbuf, op, root)
            return
        self._check_rank("root", root)
        options = dist.ReduceOptions()
        options.reduceOp, options.rootRank = _operator(op), root
        # NCCL may use the others' memory for its partial sums.
        target = _begun_in(sendbuf, recvbuf) if self.rank == root else sendbuf.clone()
        self._on_cards("Reduce", target.nbytes, lambda cards: cards.reduce([target], options))

    def Bcast(self, buf: Any, root: int = 0) -> None:
        if not _on_card(buf):
            super().Bcast(buf, root)
            return
        self._check_rank("root", root)
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor = root, 0
        self._on_cards("Bcast", buf.nbytes, lambda cards: cards.broadcast([buf], options))

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        if not _on_card(recvbuf):
            super().Allgather(sendbuf, recvbuf)
            return
        if isinstance(sendbuf, InPlace):
            sendbuf = recvbuf.view(self.size, -1)[self.rank].clone()
        if sendbuf.numel() * self.size != recvbuf.numel() or sendbuf.dtype != recvbuf.dtype:
            raise ValueError(
                f"recvbuf must hold {self.size} parts like sendbuf, {sendbuf.numel()} of {sendbuf.dtype} each; "
                f"it has {recvbuf.numel()} of {recvbuf.dtype}"
            )
        size = sendbuf.nbytes + recvbuf.nbytes
        self._on_cards("Allgather", size, lambda cards: cards._allgather_base(recvbuf.view(-1), sendbuf.view(-1)))

    def _on_cards(self, operation: str, size: int, start: Any) -> None:
        if self._aborted:
            raise CommunicatorError(f"{operation}: this group of ranks was ended")
        self._begun += 1
        began = time.monotonic()
        try:
            if self._cards is None:
                self._cards = self._new_group()
            work = start(self._cards)
            while not work.is_completed():  # wait() would hold off Ctrl-C
                time.sleep(POLL_SECONDS / 20)
            work.wait()
        except RuntimeError as error:
            raise CommunicatorError(f"{operation}: {str(error).strip()}") from error
        finally:
            self.transport.traffic.add_library(size, time.monotonic() - began)

    def _new_group(self) -> Any:
        # By the store that init_process_group uses too, for NCCL comes back to it at any time.
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        server = dist.TCPStore(host, port, is_master=False, timeout=CONNECT_TIMEOUT)
        store = dist.PrefixStore(f"{self._name}.nccl", server)
        return dist.ProcessGroupNCCL(store, self.rank, self.size, dist.ProcessGroupNCCL.Options())


def _on_card(buffer: Any) -> bool:
    return isinstance(buffer, torch.Tensor) and buffer.is_cuda


def _operator(op: Operator) -> Any:
    if op not in _OPERATORS:
        names = ", ".join(known.name for known in _OPERATORS)
        raise TypeError(f"NCCL reduces CUDA tensors by {names}; got {op!r}. Use tensor.cpu() for other operators")
    return _OPERATORS[op]


def _begun_in(sendbuf: Any, recvbuf: torch.Tensor) -> torch.Tensor:
    if not recvbuf.is_contiguous():
        raise ValueError("recvbuf must be contiguous; pass tensor.contiguous()")
    if not isinstance(sendbuf, InPlace):
        recvbuf.copy_(sendbuf)
    return recvbuf
