"""A communicator for ranks that are processes: collectives by torch.distributed's gloo, point-to-point by a mailbox.

The group is private: it is not torch's default group, so a cell that calls ``init_process_group`` itself, or trains
with DistributedDataParallel, does not meet it.
"""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from paibook.comms import sockets
from paibook.comms.communicator import Array, Communicator, CommunicatorError
from paibook.comms.inbox import INTERNAL_TAG
from paibook.comms.mailbox import Mailbox
from paibook.comms.messages import Message, pack, pack_items, unpack, unpack_item
from paibook.comms.operators import LAND, LOR, MAX, MIN, PROD, SUM, Operator
from paibook.comms.rendezvous import Meeting, open_folder
from paibook.comms.traffic import bytes_of
from paibook.errors import PaibookError

try:
    import torch
    import torch.distributed as dist
except ImportError as error:
    raise PaibookError("comm between processes needs PyTorch; install with: pip install 'paibook[torch]'") from error

HEAD_BYTES = 512  # an object whose message fits goes in one operation
WAIT = timedelta(milliseconds=25)  # how long Ctrl-C may go unseen
OPERATION_TIMEOUT = timedelta(days=1)  # a cell may compute for hours between two operations; the driver ends runs
CONNECT_TIMEOUT = timedelta(seconds=30)
STORE_TIMEOUT = timedelta(seconds=10)
POLL_SECONDS = 0.001
SLOW_POLL_SECONDS = 0.02  # thirty ranks that look for the last one a thousand times a second keep it from coming

_OPERATORS: dict[Operator, Any] = {
    SUM: dist.ReduceOp.SUM,
    PROD: dist.ReduceOp.PRODUCT,
    MIN: dist.ReduceOp.MIN,
    MAX: dist.ReduceOp.MAX,
    LAND: dist.ReduceOp.MIN,
    LOR: dist.ReduceOp.MAX,
}
_REDUCIBLE = tuple(np.dtype(name) for name in ("f2", "f4", "f8", "i1", "u1", "i4", "i8"))
_LENGTH_BYTES = 8


def _allreduce_options(op: Any) -> Any:
    options = dist.AllreduceOptions()
    options.reduceOp = op
    return options


# Made once: with the operator itself as argument, torch's bindings take 50 us to find the overload.
_ALLREDUCE = {op: _allreduce_options(theirs) for op, theirs in _OPERATORS.items()}

# Dropping the last reference to a group joins its threads, which may wait for a peer that is still busy elsewhere.
_ended: list[Any] = []


class TorchCommunicator(Communicator):
    """A private gloo group.

    Args:
        rank, size: This rank's number, and how many there are.
        meeting: Where the ranks find each other; all name the same one.
        name: Sets this group apart from earlier ones of the same meeting.

    Raises:
        CommunicatorError: The group could not be formed.
    """

    def __init__(self, rank: int, size: int, meeting: Meeting, name: str) -> None:
        self.rank = rank
        self.size = size
        self._token = meeting.token
        self._aborted = False
        self._begun = 0
        self._addresses: dict[int, tuple[str, int]] = {}
        self.members = range(size)
        self.transport = self._mailbox = Mailbox(rank, meeting.token, meeting.bind_host(rank), self._address_of)
        self._sockets: set[int] = set()
        self._group: Any = None
        self._store: Any = None
        self._clear_away = lambda: None
        try:
            self._store = _store(meeting, name)
            if meeting.folder is not None:
                # Also without any collective; a rank that is killed leaves it to the others.
                self._clear_away = weakref.finalize(self, shutil.rmtree, meeting.folder_of(name), True)
            host, port = self._mailbox.address
            self._store.set(f"mailbox/{rank}", f"{host} {port}")
        except BaseException:
            self.abort()
            raise

    def _address_of(self, rank: int) -> tuple[str, int]:
        """Where a rank's mailbox is; waits until that rank has communicated for the first time."""
        if rank not in self._addresses:
            host, port = self._wait_for(f"mailbox/{rank}", rank).split()
            self._addresses[rank] = host, int(port)
        return self._addresses[rank]

    def _wait_for(self, key: str, rank: int) -> str:
        pause = POLL_SECONDS
        while True:
            store = self._store  # abort() takes it away
            if store is None:
                raise CommunicatorError(f"the group of ranks was ended before rank {rank} communicated")
            try:
                if store.check([key]):
                    return str(store.get(key).decode())
            except RuntimeError as error:  # a peer that ended the group has taken the store away
                raise CommunicatorError(f"rank {rank} cannot be found: {_first_line(error)}") from error
            time.sleep(pause)
            pause = min(1.5 * pause, SLOW_POLL_SECONDS)

    def _connect(self) -> None:
        # Not before a collective: messages between two ranks need no third. And gloo's constructor cannot be
        # interrupted, so it is entered only when every rank is there.
        store = self._store
        store.set(f"here/{self.rank}", "")
        for rank in range(self.size):
            self._wait_for(f"here/{rank}", rank)
            self._address_of(rank)
        options = dist.ProcessGroupGloo._Options()
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=self._mailbox.address[0])]
        options._timeout = CONNECT_TIMEOUT
        before = sockets.inodes()
        try:
            self._group = dist.ProcessGroupGloo(store, self.rank, self.size, options)
        except RuntimeError as error:
            raise CommunicatorError(f"the ranks could not connect to each other: {error}") from error
        self._sockets = sockets.inodes() - before
        self._group._set_default_timeout(OPERATION_TIMEOUT)
        self.Barrier()  # nobody needs the store after this
        self._store = None
        self._clear_away()

    @property
    def steps(self) -> tuple[int, int, int]:
        return self._begun, self._mailbox.sent, self._mailbox.received

    def abort(self) -> None:
        if self._aborted:
            return
        self._aborted = True
        self._mailbox.close()
        self._store = None  # its folder stays until nobody can be looking into it
        if self._group is not None:
            _ended.append(self._group)
            self._group.abort()
            # abort() alone leaves operations that wait for a peer; without their connections they fail, here and there.
            sockets.shut_down(self._sockets)

    # Collectives

    def Barrier(self) -> None:
        # Gloo's own takes log n rounds; an allgather, which goes round the ring, n - 1 of them.
        self._run("Barrier", 0, lambda: self._group.barrier(dist.BarrierOptions()))

    def _bcast_buffer(self, array: Array, root: int) -> None:
        self._broadcast(array.view(np.uint8), root)

    def _allreduce_buffer(self, array: Array, op: Operator) -> None:
        if not known(array, op):
            self._allreduce_by_messages(array, op)
        elif array.size and self.size > 1:
            values = _reducible(array, op)
            self._run("Allreduce", values.nbytes, lambda: self._group.allreduce([_tensor(values)], _ALLREDUCE[op]))
            _store_result(values, array)

    def _reduce_buffer(self, array: Array, op: Operator, root: int) -> None:
        if not known(array, op):
            self._reduce_by_messages(array, op, root)
        elif array.size and self.size > 1:
            options = dist.ReduceOptions()
            options.rootRank, options.reduceOp = root, _OPERATORS[op]
            values = _reducible(array, op)
            self._run("Reduce", values.nbytes, lambda: self._group.reduce([_tensor(values)], options))
            _store_result(values, array)

    def _allgather_buffer(self, part: Array, whole: Array) -> None:
        if whole.size:
            source, target = _tensor(part.copy().view(np.uint8)), _tensor(whole.view(np.uint8))
            self._run("Allgather", part.nbytes + whole.nbytes, lambda: self._group._allgather_base(target, source))

    def _gather_buffer(self, part: Array, whole: Array | None, root: int) -> None:
        options = dist.GatherOptions()
        options.rootRank = root
        rows = [] if whole is None else [[_tensor(row) for row in whole.view(np.uint8).reshape(self.size, -1)]]
        if part.size:
            source = [_tensor(part.copy().view(np.uint8))]
            self._run("Gather", bytes_of(part, whole), lambda: self._group.gather(rows, source, options))

    def _scatter_buffer(self, whole: Array | None, part: Array, root: int) -> None:
        options = dist.ScatterOptions()
        options.rootRank = root
        rows = [] if whole is None else [[_tensor(row.copy()) for row in whole.view(np.uint8).reshape(self.size, -1)]]
        if part.size:
            target = [_tensor(part.view(np.uint8))]
            self._run("Scatter", bytes_of(part, whole), lambda: self._group.scatter(target, rows, options))

    def _alltoall_buffer(self, parts: Array, whole: Array) -> None:
        if whole.size:
            source, target = _tensor(parts.view(np.uint8)), _tensor(whole.view(np.uint8))
            self._run("Alltoall", 2 * whole.nbytes, lambda: self._group.alltoall_base(target, source, [], []))

    # Objects: the first HEAD_BYTES of every message in one operation, and the rest, if any, at its exact length

    def bcast(self, obj: Any, root: int = 0) -> Any:
        self._check_rank("root", root)
        message = pack(obj, self._token) if self.rank == root else np.empty(0, np.uint8)
        head = _head(message)
        self._broadcast(head, root)
        if self.rank != root:
            message = _opened(head)
        self._broadcast(_rest(message), root)
        return obj if self.rank == root else unpack(message, self._token)

    def allgather(self, sendobj: Any) -> list[Any]:
        messages = self._messages_of_all(pack(sendobj, self._token))
        return [unpack(message, self._token) for message in messages]

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        self._check_rank("root", root)
        mine = pack(sendobj, self._token)
        messages = [_opened(head) for head in self._head_of_all(_head(mine))]
        for rank, message in enumerate(messages):
            self._pass_on(_rest(mine), _rest(message), rank, root)
        messages[self.rank] = mine
        return [unpack(message, self._token) for message in messages] if self.rank == root else None

    def _scatter(self, items: Sequence[Any] | ValueError | None, root: int) -> Any:
        row = pack_items(items, self.size, self._token) if self.rank == root else []
        head = np.empty(HEAD_BYTES, np.uint8)
        heads = np.concatenate([_head(message) for message in row]) if row else None
        self._scatter_buffer(heads, head, root)
        message = _opened(head)
        for rank in range(self.size):
            self._pass_on(_rest(row[rank]) if row else message, _rest(message), root, rank)
        return unpack_item(row[self.rank] if row else message, self._token)

    def _alltoall(self, items: Sequence[Any] | ValueError) -> list[Any]:
        row = pack_items(items, self.size, self._token)
        heads = np.empty(self.size * HEAD_BYTES, np.uint8)
        self._alltoall_buffer(np.concatenate([_head(message) for message in row]), heads)
        column = [_opened(head) for head in heads.reshape(self.size, HEAD_BYTES)]
        for step in range(self.size):
            to, source = (self.rank + step) % self.size, (self.rank - step) % self.size
            if _rest(row[to]).size:
                self._mailbox.send(_rest(row[to]), to, INTERNAL_TAG)
            _fill(_rest(column[source]), self._mailbox, source)
        return [unpack_item(message, self._token) for message in column]

    def _pass_on(self, mine: Message, theirs: Message, source: int, dest: int) -> None:
        if source == dest:
            return
        if self.rank == source and mine.size:
            self._mailbox.send(mine, dest, INTERNAL_TAG)
        elif self.rank == dest:
            _fill(theirs, self._mailbox, source)

    def _messages_of_all(self, mine: Message) -> list[Message]:
        messages = [_opened(head) for head in self._head_of_all(_head(mine))]
        messages[self.rank] = mine
        for rank, message in enumerate(messages):
            self._broadcast(_rest(message), rank)
        return messages

    def _head_of_all(self, head: Message) -> Message:
        heads = np.empty(self.size * head.size, np.uint8)
        self._allgather_buffer(head, heads)
        return heads.reshape(self.size, head.size)

    def _broadcast(self, array: Message, root: int) -> None:
        if array.size and self.size > 1:
            options = dist.BroadcastOptions()
            options.rootRank, options.rootTensor = root, 0
            self._run("Bcast", array.nbytes, lambda: self._group.broadcast([_tensor(array)], options))

    def _run(self, operation: str, size: int, start: Any) -> None:
        """Let gloo do an operation on buffers of ``size`` bytes."""
        if self._aborted:
            raise CommunicatorError(f"{operation}: this group of ranks was ended")
        if self._group is None:
            self._connect()
        self._begun += 1
        began = time.monotonic()
        try:
            work = start()
            # wait() holds off Ctrl-C while it lasts, so it is asked again and again; running out of a slice does not
            # disturb the operation (it would with gloo's send and recv, hence the mailbox).
            while not _finished(work):
                pass
        except RuntimeError as error:
            raise CommunicatorError(f"{operation}: {_first_line(error)}") from error
        finally:
            self.transport.traffic.add_library(size, time.monotonic() - began)


def _finished(work: Any) -> bool:
    try:
        work.wait(WAIT)
    except RuntimeError:
        if not work.is_completed():
            return False
        work.wait()  # ended since: at once, with its own error if it has one
    return True


def _store(meeting: Meeting, name: str) -> Any:
    if meeting.folder is None:
        host, port = meeting.address
        return dist.PrefixStore(name, dist.TCPStore(host, port, is_master=False, timeout=CONNECT_TIMEOUT))
    # All ranks on one host: a file that only this user can open, rather than TCPStore's open port.
    folder = meeting.folder_of(name)
    open_folder(folder)
    store = dist.FileStore(str(folder / "store"), -1)
    store.set_timeout(STORE_TIMEOUT)
    return dist.PrefixStore(name, store)


def _tensor(array: Array) -> torch.Tensor:
    if not array.flags.writeable:
        array = array.copy()  # torch knows no read-only memory
    return torch.from_numpy(array)


def known(array: Array, op: Operator) -> bool:
    """Whether gloo has this operator for this type."""
    return op in (LAND, LOR) or (op in _OPERATORS and array.dtype in _REDUCIBLE)


def _reducible(array: Array, op: Operator) -> Array:
    return (array != 0).astype(np.uint8) if op in (LAND, LOR) else array


def _store_result(values: Array, array: Array) -> None:
    if values is not array:
        array[:] = values


def _head(message: Message) -> Message:
    head = np.zeros(HEAD_BYTES, np.uint8)
    head[:_LENGTH_BYTES] = np.frombuffer(message.nbytes.to_bytes(_LENGTH_BYTES, "little"), np.uint8)
    start = message[: HEAD_BYTES - _LENGTH_BYTES]
    head[_LENGTH_BYTES : _LENGTH_BYTES + start.size] = start
    return head


def _opened(head: Message) -> Message:
    length = int.from_bytes(head[:_LENGTH_BYTES].tobytes(), "little")
    message = np.empty(length, np.uint8)
    start = message[: HEAD_BYTES - _LENGTH_BYTES]
    start[:] = head[_LENGTH_BYTES : _LENGTH_BYTES + start.size]
    return message


def _rest(message: Message) -> Message:
    return message[HEAD_BYTES - _LENGTH_BYTES :]


def _fill(rest: Message, mailbox: Mailbox, source: int) -> None:
    if rest.size:
        rest[:] = mailbox.receive(source, INTERNAL_TAG).data


def _first_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
