"""One contract for every communicator: each operation against NumPy, on threads and on real processes."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest

from paibook.comms import IN_PLACE, LAND, LOR, MAX, MIN, PROD, SUM, Communicator, CommunicatorError
from paibook.comms.rendezvous import Meeting
from paibook.comms.segment import supported
from paibook.comms.threads import ThreadCommunicator, ThreadGroup

Function = Callable[[Communicator], Any]
cloudpickle.register_pickle_by_value(sys.modules[__name__])

PROCESS = """
import pickle, signal, sys
if sys.argv[1] == "gloo":
    from paibook.comms.gloo import TorchCommunicator as Chosen
else:
    from paibook.comms.shared_memory import SharedMemoryCommunicator as Chosen
signal.signal(signal.SIGINT, signal.default_int_handler)
source, sink, comm = sys.stdin.buffer, sys.stdout.buffer, None
while True:
    try:
        call = pickle.load(source)
    except EOFError:
        break
    try:
        if call[0] == "connect":
            if comm is not None:
                comm.abort()
            comm = Chosen(*call[1:])
            answer = None
        else:
            sink.write(b"!"); sink.flush()  # the function starts
            answer = pickle.loads(call[1])(comm)
    except BaseException as error:
        answer = error
    sink.write(pickle.dumps(answer)); sink.flush()
"""


class Threads:
    """Ranks as threads."""

    def __init__(self) -> None:
        self.group = ThreadGroup(1)

    def run(self, size: int, function: Function) -> list[Any]:
        self.group = ThreadGroup(size)
        answers: list[Any] = [None] * size

        def work(rank: int) -> None:
            try:
                answers[rank] = function(ThreadCommunicator(self.group, rank))
            except BaseException as error:
                answers[rank] = error

        threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        return answers


class Processes:
    """Ranks as processes that keep their communicator until another world is asked for."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.meeting = Meeting.on_this_host()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.connected = 0
        self.generation = 0

    def run(self, size: int, function: Function) -> list[Any]:
        self.connect(size)
        self.start(function)
        return self.answers()

    def connect(self, size: int, again: bool = False) -> None:
        while len(self.processes) < size:
            command = [sys.executable, "-c", PROCESS, self.kind]
            self.processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        if self.connected != size or again:
            self.generation += 1
            for rank in range(size):
                self._tell(rank, ("connect", rank, size, self.meeting, str(self.generation)))
            self.connected = size
            assert self.answers() == [None] * size

    def start(self, function: Function) -> None:
        for rank in range(self.connected):
            self._tell(rank, ("run", cloudpickle.dumps(function)))
        for rank in range(self.connected):
            assert self.processes[rank].stdout.read(1) == b"!"

    def answers(self) -> list[Any]:
        return [pickle.load(self.processes[rank].stdout) for rank in range(self.connected)]

    def interrupt(self, rank: int) -> None:
        self.processes[rank].send_signal(signal.SIGINT)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def _tell(self, rank: int, call: tuple[Any, ...]) -> None:
        stdin = self.processes[rank].stdin
        pickle.dump(call, stdin)
        stdin.flush()


KINDS = ["gloo", pytest.param("shared memory", marks=pytest.mark.skipif(not supported(), reason="not on this host"))]


@pytest.fixture(scope="module")
def by_kind() -> Iterator[dict[str, Processes]]:
    worlds = {kind: Processes(kind) for kind in ("gloo", "shared memory")}
    yield worlds
    for world in worlds.values():
        world.close()


@pytest.fixture(params=KINDS)
def processes(request: pytest.FixtureRequest, by_kind: dict[str, Processes]) -> Processes:
    return by_kind[request.param]


@pytest.fixture(params=["threads", *KINDS])
def world(request: pytest.FixtureRequest, by_kind: dict[str, Processes]) -> Threads | Processes:
    return Threads() if request.param == "threads" else by_kind[request.param]


SIZES = pytest.mark.parametrize("size", [1, 2, 3])
DTYPES = ["float32", "float64", "int64"]


def run(world: Threads | Processes, size: int, function: Function) -> list[Any]:
    answers = world.run(size, function)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def part(rank: int, dtype: str, length: int = 5) -> np.ndarray:
    return (np.arange(length) + 2 + 10 * rank).astype(dtype)


def same(left: Any, right: Any) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and bool((left == right).all())


@SIZES
def test_it_knows_its_place(world: Any, size: int) -> None:
    answers = run(
        world, size, lambda c: (c.rank, c.size, c.Get_rank(), c.Get_size(), c.SUM is SUM, c.IN_PLACE is IN_PLACE)
    )
    assert answers == [(rank, size, rank, size, True, True) for rank in range(size)]


@SIZES
def test_reductions_of_buffers_agree_with_numpy(world: Any, size: int) -> None:
    ufuncs = {SUM: np.add, PROD: np.multiply, MIN: np.minimum, MAX: np.maximum}

    def work(comm: Communicator) -> None:
        for dtype in DTYPES:
            for op, ufunc in ufuncs.items():
                parts = np.stack([part(rank, dtype) for rank in range(comm.size)])
                expected = ufunc.reduce(parts, axis=0)
                mine, result = part(comm.rank, dtype), np.zeros(5, dtype)
                comm.Allreduce(mine, result, op)
                assert same(result, expected)
                assert same(mine, part(comm.rank, dtype))
                buffer = part(comm.rank, dtype).reshape(5, 1)
                comm.Allreduce(IN_PLACE, buffer, op=op)
                assert same(buffer.ravel(), expected)
                root = comm.size - 1
                result = np.full(5, 77, dtype)
                comm.Reduce(mine, result, op, root=root)
                assert same(result, expected if comm.rank == root else np.full(5, 77, dtype))
                assert same(mine, part(comm.rank, dtype))

    run(world, size, work)


@SIZES
def test_logical_operators(world: Any, size: int) -> None:
    def work(comm: Communicator) -> tuple[list[bool], list[int]]:
        flags = np.array([True, comm.rank == 0, False])
        comm.Allreduce(IN_PLACE, flags, LAND)
        counts = np.array([0, comm.rank, 5])
        comm.Allreduce(IN_PLACE, counts, LOR)
        assert comm.allreduce(comm.rank == 0, LOR) is True
        assert comm.allreduce(comm.rank == 0, LAND) is (comm.size == 1)
        return flags.tolist(), counts.tolist()

    expected = ([True, size == 1, False], [0, int(size > 1), 1] if size > 1 else [0, 0, 1])
    answers = run(world, size, work)
    assert [answer[0] for answer in answers] == [expected[0]] * size
    assert [[bool(v) for v in answer[1]] for answer in answers] == [[bool(v) for v in expected[1]]] * size


@SIZES
def test_moving_buffers_agrees_with_numpy(world: Any, size: int) -> None:
    def work(comm: Communicator) -> None:
        everyone = range(comm.size)
        for dtype in [*DTYPES, "complex64", "int16"]:
            whole = np.concatenate([part(rank, dtype) for rank in everyone])
            mine = part(comm.rank, dtype)
            for root in everyone:
                buffer = part(comm.rank, dtype)
                comm.Bcast(buffer, root)
                assert same(buffer, part(root, dtype))
                gathered = np.zeros_like(whole)
                comm.Gather(mine, gathered if comm.rank == root else None, root)
                assert same(gathered, whole if comm.rank == root else np.zeros_like(whole))
                received = np.zeros(5, dtype)
                comm.Scatter(whole if comm.rank == root else None, received, root)
                assert same(received, mine)
            gathered = np.zeros_like(whole)
            comm.Allgather(mine, gathered)
            assert same(gathered, whole)
            gathered = np.where(np.arange(whole.size) // 5 == comm.rank, whole, 0).astype(dtype)
            comm.Allgather(IN_PLACE, gathered)
            assert same(gathered, whole)
            table = np.arange(comm.size**2 * 2).reshape(comm.size, comm.size, 2).astype(dtype)
            received = np.zeros((comm.size, 2), dtype)
            comm.Alltoall(table[comm.rank], received)
            assert same(received, table[:, comm.rank])
        comm.Barrier()

    run(world, size, work)


@SIZES
def test_torch_tensors_are_buffers(world: Any, size: int) -> None:
    def work(comm: Communicator) -> list[float]:
        import torch

        tensor = torch.full((2, 2), float(comm.rank + 1))
        comm.Allreduce(IN_PLACE, tensor)
        return tensor.ravel().tolist()

    assert run(world, size, work) == [[size * (size + 1) / 2] * 4] * size


@SIZES
@pytest.mark.parametrize("weight", [1, 3000], ids=["small", "large"])
def test_object_collectives(world: Any, size: int, weight: int) -> None:
    def work(comm: Communicator) -> None:
        everyone = list(range(comm.size))

        def thing(rank: int) -> dict[str, Any]:
            return {"rank": rank, "text": "ä" * weight * (rank + 1), "array": np.arange(weight * (rank + 1))}

        def equal(left: Any, right: Any) -> bool:
            return (
                left["rank"] == right["rank"] and left["text"] == right["text"] and same(left["array"], right["array"])
            )

        for root in everyone:
            assert equal(comm.bcast(thing(root) if comm.rank == root else None, root), thing(root))
            gathered = comm.gather(thing(comm.rank), root)
            if comm.rank == root:
                assert all(equal(a, thing(b)) for a, b in zip(gathered, everyone, strict=True))
            else:
                assert gathered is None
            items = [thing(rank) for rank in everyone] if comm.rank == root else None
            assert equal(comm.scatter(items, root), thing(comm.rank))
            total = comm.reduce([comm.rank] * weight, SUM, root)
            assert total == ([r for r in everyone for _ in range(weight)] if comm.rank == root else None)
        assert all(equal(a, thing(b)) for a, b in zip(comm.allgather(thing(comm.rank)), everyone, strict=True))
        sent = [("from", comm.rank, "to", rank, "x" * weight) for rank in everyone]
        assert comm.alltoall(sent) == [("from", rank, "to", comm.rank, "x" * weight) for rank in everyone]
        comm.barrier()

    run(world, size, work)


@SIZES
def test_object_reductions(world: Any, size: int) -> None:
    def work(comm: Communicator) -> tuple[Any, ...]:
        array = comm.allreduce(np.array([1.0, comm.rank]), MAX)
        array += 1  # the result is this rank's own
        return (
            comm.allreduce(comm.rank + 1),
            comm.allreduce(comm.rank + 1, PROD),
            comm.allreduce(float(comm.rank), op=MIN),
            comm.allreduce({comm.rank}, lambda a, b: a | b),
            array.tolist(),
        )

    product = int(np.prod(range(1, size + 1)))
    expected = (size * (size + 1) // 2, product, 0.0, set(range(size)), [2.0, float(size)])
    assert run(world, size, work) == [expected] * size


@SIZES
def test_point_to_point(world: Any, size: int) -> None:
    def tagged(comm: Communicator) -> None:
        comm.send("a", comm.rank, tag=3)
        assert comm.recv(tag=3) == "a"
        small = np.zeros(3)
        comm.Send(np.zeros(4), comm.rank)
        with pytest.raises(ValueError, match="32 bytes for a buffer of 24"):
            comm.Recv(small)

    def ordered(comm: Communicator) -> None:
        comm.barrier()
        work_items = [comm.send(i, (comm.rank + 1) % comm.size) for i in range(50)]
        assert [comm.recv() for _ in work_items] == list(range(50))
        comm.barrier()

    def ring(comm: Communicator) -> None:
        right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
        big = np.full(200_000, comm.rank, "float64")
        comm.Send(big, right, tag=7)
        comm.send("first", right, tag=1)
        comm.send("second", right, tag=2)
        assert comm.recv(source=left, tag=2) == "second"
        assert comm.recv(source=left, tag=1) == "first"
        received = np.empty_like(big)
        comm.Recv(received, source=left)
        assert same(received, np.full(200_000, left, "float64"))
        comm.barrier()
        if comm.rank:
            comm.send(comm.rank, 0)
        else:
            assert sorted(comm.recv() for _ in range(comm.size - 1)) == list(range(1, comm.size))

    for function in (ring, tagged, ordered):
        run(world, size, function)


def test_messages_between_two_ranks_need_no_third(world: Any) -> None:
    def work(comm: Communicator) -> Any:
        if comm.rank == 1:
            return None
        comm.send(comm.rank, 2 - comm.rank)
        return comm.recv(2 - comm.rank)

    if isinstance(world, Processes):
        world.connect(3, again=True)
    assert run(world, 3, work) == [2, None, 0]
    assert run(world, 3, lambda comm: comm.allreduce(1)) == [3, 3, 3]


def test_functions_of_the_cell_travel(world: Any) -> None:
    def work(comm: Communicator) -> int:
        class Local:
            value = comm.rank

        twice = comm.bcast((lambda x: 2 * x) if comm.rank == 0 else None)
        return twice(comm.allgather(Local)[1].value)

    assert run(world, 2, work) == [2, 2]


def test_lists_of_the_wrong_length_are_refused_on_every_rank(world: Any) -> None:
    def work(comm: Communicator) -> list[str]:
        messages = []
        for call in (
            lambda: comm.scatter([1, 2, 3] if comm.rank == 0 else None),
            lambda: comm.alltoall([1] if comm.rank == 1 else [1, 2]),
            lambda: comm.scatter(None),
        ):
            with pytest.raises(ValueError, match="2 items") as caught:
                call()
            messages.append(str(caught.value))
        assert comm.allreduce(1) == 2  # the group is none the worse
        return messages

    for messages in run(world, 2, work):
        assert messages[0] == "scatter takes 2 items, one per rank; rank 0 gave 3"
        assert messages[1] == "alltoall takes 2 items, one per rank; rank 1 gave 1"


def test_bad_arguments_are_named(world: Any) -> None:
    def work(comm: Communicator) -> None:
        a, b = np.zeros(4), np.zeros(4)
        for error, match, call in [
            (ValueError, "dest must be a rank from 0 to 1; got 2", lambda: comm.send(1, 2)),
            (ValueError, "root must be a rank", lambda: comm.bcast(1, root=-1)),
            (ValueError, "tag must be", lambda: comm.send(1, 0, tag=-3)),
            (ValueError, "sendbuf has 4 of float64, recvbuf has 3 of float64", lambda: comm.Allreduce(a, np.zeros(3))),
            (ValueError, "must have one dtype", lambda: comm.Allreduce(a, b.astype("f4"))),
            (ValueError, "C-contiguous", lambda: comm.Allreduce(IN_PLACE, np.zeros((4, 4)).T[1:])),
            (ValueError, "2 equal parts", lambda: comm.Allgather(np.zeros(1), np.zeros(3))),
            (TypeError, "NumPy array or a torch tensor; got list", lambda: comm.Allreduce(IN_PLACE, [1, 2])),
            (TypeError, "op must be one of SUM", lambda: comm.Allreduce(a, b, max)),
            (TypeError, "cannot send a generator", lambda: comm.send((x for x in []), 0)),
        ]:
            with pytest.raises(error, match=match):
                call()

    run(world, 2, work)


def test_abort_frees_peers_in_a_collective_and_in_recv(world: Any) -> None:
    def work(comm: Communicator) -> str:
        if comm.rank == 0:
            comm.send("ready?", 1)
            assert comm.recv(1) == "ready"
            comm.abort()
            return "aborted"
        comm.recv(0)
        comm.send("ready", 0)
        with pytest.raises(CommunicatorError):
            comm.allreduce(1)
        return "freed"

    assert run(world, 2, work) == ["aborted", "freed"]
    if isinstance(world, Processes):
        world.connect(2, again=True)
    assert run(world, 2, lambda comm: comm.allreduce(comm.rank)) == [1, 1]


@pytest.mark.parametrize("operation", ["collective", "receive"])
def test_an_interrupt_frees_a_process_and_the_next_group_works(processes: Processes, operation: str) -> None:
    def work(comm: Communicator) -> Any:
        if comm.rank == 1:
            time.sleep(30)
        return comm.allreduce(np.zeros(1000)) if operation == "collective" else comm.recv(1)

    processes.connect(2, again=True)
    processes.start(work)
    time.sleep(0.1)  # let rank 0 get into its operation; whether it did makes no difference to what must follow
    started = time.monotonic()
    for rank in range(2):
        processes.interrupt(rank)
    assert [type(answer) for answer in processes.answers()] == [KeyboardInterrupt, KeyboardInterrupt]
    assert time.monotonic() - started < 5
    processes.connect(2, again=True)
    processes.start(lambda comm: comm.allreduce(comm.rank + 1))
    assert processes.answers() == [3, 3]


@pytest.mark.parametrize("operation", [lambda comm: comm.barrier(), lambda comm: comm.send(1, 1)])
def test_connecting_can_be_interrupted(processes: Processes, operation: Function) -> None:
    processes.connect(2)
    processes.generation += 1
    processes._tell(0, ("connect", 0, 2, processes.meeting, "a group whose rank 1 never comes"))
    processes.connected = 0
    assert pickle.load(processes.processes[0].stdout) is None
    processes._tell(0, ("run", cloudpickle.dumps(operation)))
    assert processes.processes[0].stdout.read(1) == b"!"
    time.sleep(0.1)
    processes.interrupt(0)
    assert isinstance(pickle.load(processes.processes[0].stdout), KeyboardInterrupt)
