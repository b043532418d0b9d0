"""Collectives in shared memory, on real processes: against NumPy, in great number, and when ranks leave."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from paibook.comms import IN_PLACE, LAND, LOR, MAX, MIN, PROD, SUM, Communicator, CommunicatorError
from paibook.comms.rendezvous import Meeting
from paibook.comms.segment import HEADER_BYTES, Segment, heading, supported

pytestmark = pytest.mark.skipif(not supported(), reason="no shared memory with ordered stores here")
cloudpickle.register_pickle_by_value(sys.modules[__name__])

RANK = """
import pickle, signal, sys
from paibook.comms.shared_memory import SharedMemoryCommunicator
signal.signal(signal.SIGINT, signal.default_int_handler)
arguments, function = pickle.load(sys.stdin.buffer)
comm = SharedMemoryCommunicator(*arguments)
sys.stdout.buffer.write(b"!"); sys.stdout.buffer.flush()
try:
    answer = pickle.loads(function)(comm)
except BaseException as error:
    answer = error
sys.stdout.buffer.write(pickle.dumps((answer, "torch" in sys.modules))); sys.stdout.buffer.flush()
sys.stdin.buffer.read()  # leaving would end the group for ranks that are slower
"""
BUFFER_TYPES = ["float32", "float64", "int8", "int16", "uint32", "int64", "bool", "complex64", "float16"]
OPERATORS = [SUM, PROD, MIN, MAX, LAND, LOR]
LENGTHS = [0, 1, 2, 3, 7, 1000, 40_001, 300_007]


class Ranks:
    """Processes that form one group and run one function."""

    def __init__(self, size: int, function: Callable[[Communicator], Any], name: str = "group") -> None:
        self.meeting = Meeting.on_this_host()
        command = [sys.executable, "-c", RANK]
        self.processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(size)]
        for rank, process in enumerate(self.processes):
            pickle.dump(((rank, size, self.meeting, name), cloudpickle.dumps(function)), process.stdin)
            process.stdin.flush()
        for process in self.processes:
            assert process.stdout.read(1) == b"!"

    def answer(self, rank: int) -> Any:
        answer, torch_imported = pickle.load(self.processes[rank].stdout)
        assert not torch_imported
        return answer

    def answers(self) -> list[Any]:
        return [self.answer(rank) for rank in range(len(self.processes))]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[..., Ranks]]:
    made: list[Ranks] = []

    def start(*arguments: Any) -> Ranks:
        made.append(Ranks(*arguments))
        return made[-1]

    yield start
    for ranks in made:
        ranks.close()


def say_here(folder: Path, comm: Communicator) -> None:
    (folder / str(comm.rank)).touch()


def wait_until_here(folder: Path, size: int) -> None:
    while len(list(folder.iterdir())) < size:
        time.sleep(0.01)
    time.sleep(0.05)  # into the collective that follows


def values(random: np.random.Generator, dtype: str, length: int) -> np.ndarray:
    """Small whole numbers, whose sums and products are exact in every type."""
    return random.integers(0, 3, length).astype(dtype)


def equal(left: Any, right: Any) -> bool:
    return left.dtype == right.dtype and np.array_equal(left, right)


def reductions(comm: Communicator, random: np.random.Generator, dtype: str, length: int) -> None:
    parts = [values(random, dtype, length) for _ in range(comm.size)]
    op = OPERATORS[random.integers(len(OPERATORS))]
    root = int(random.integers(comm.size))
    expected = parts[0]
    for part in parts[1:]:
        expected = op.arrays(expected, part)
    mine, result = parts[comm.rank].copy(), np.full(length, 1, dtype)
    comm.Allreduce(mine, result, op)
    assert equal(result, expected)
    assert equal(mine, parts[comm.rank])
    comm.Allreduce(IN_PLACE, mine, op)
    assert equal(mine, expected)
    result, untouched = np.ones(length, dtype), np.ones(length, dtype)
    comm.Reduce(parts[comm.rank], result, op, root)
    assert equal(result, expected if comm.rank == root else untouched)
    whole = np.concatenate([parts[comm.rank], parts[comm.rank][:1]])
    comm.Allreduce(whole[:length], whole[len(whole) - length :], op)  # one lies over the other
    assert equal(whole[len(whole) - length :], expected)


def moves(comm: Communicator, random: np.random.Generator, dtype: str, length: int) -> None:
    table = [[values(random, dtype, length) for _ in range(comm.size)] for _ in range(comm.size)]
    root = int(random.integers(comm.size))
    rows = [np.concatenate(row) for row in table]
    mine = table[comm.rank][0].copy()
    comm.Bcast(mine, root)
    assert equal(mine, table[root][0])
    first = np.concatenate([row[0] for row in table])
    gathered, untouched = np.ones_like(first), np.ones_like(first)
    comm.Gather(table[comm.rank][0], gathered if comm.rank == root else None, root)
    assert equal(gathered, first if comm.rank == root else untouched)
    comm.Allgather(table[comm.rank][0], gathered)
    assert equal(gathered, first)
    placed = np.ones_like(first)
    placed[comm.rank * length : (comm.rank + 1) * length] = table[comm.rank][0]
    comm.Allgather(IN_PLACE, placed)
    assert equal(placed, first)
    comm.Scatter(rows[root] if comm.rank == root else None, mine, root)
    assert equal(mine, table[root][comm.rank])
    whole = rows[root].copy()
    part = whole[root * length : (root + 1) * length] if comm.rank == root else mine
    comm.Scatter(whole if comm.rank == root else None, IN_PLACE if comm.rank == root else part, root)
    assert equal(part, table[root][comm.rank])
    dealt = rows[comm.rank].copy()
    comm.Alltoall(IN_PLACE, dealt)
    assert equal(dealt, np.concatenate([row[comm.rank] for row in table]))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_collective_agrees_with_numpy(start: Any, size: int) -> None:
    def work(comm: Communicator) -> None:
        random = np.random.default_rng(size)  # the same on every rank
        for length in LENGTHS:
            for dtype in random.permutation(BUFFER_TYPES)[: 9 if length < 10_000 else 3]:
                reductions(comm, random, str(dtype), length)
                moves(comm, random, str(dtype), length)

    assert start(size, work).answers() == [None] * size


def test_every_rank_gets_the_same_bits(start: Any) -> None:
    def work(comm: Communicator) -> list[bytes]:
        random = np.random.default_rng(comm.rank)
        results = []
        for length in (5, 20_000, 200_000):
            result = np.empty(length, np.float32)
            comm.Allreduce(random.normal(size=length).astype(np.float32), result)
            results.append(result.tobytes())
        return results

    first, *others = start(4, work).answers()
    assert others == [first] * 3


@pytest.mark.parametrize("size", [2, 4], ids=["2 ranks", "4 ranks"])
def test_ten_thousand_small_collectives_in_random_order(start: Any, size: int) -> None:
    def work(comm: Communicator) -> tuple[int, int, int]:
        random = np.random.default_rng(7)
        ones, table = np.ones(3), np.arange(comm.size)
        for turn, kind in enumerate(random.integers(7, size=10_000 if size == 2 else 2_000)):
            root = turn % comm.size
            if kind == 0:
                comm.Barrier()
            elif kind == 1:
                result = np.empty(3)
                comm.Allreduce(ones * turn, result)
                assert result[2] == turn * comm.size
            elif kind == 2:
                buffer = np.array([turn if comm.rank == root else -1])
                comm.Bcast(buffer, root)
                assert buffer[0] == turn
            elif kind == 3:
                assert comm.allgather((turn, comm.rank)) == [(turn, rank) for rank in range(comm.size)]
            elif kind == 4:
                dealt = np.empty_like(table)
                comm.Alltoall(table + turn + 10 * comm.rank, dealt)
                assert (dealt == comm.rank + turn + 10 * table).all()
            elif kind == 5:
                assert comm.bcast({"turn": turn} if comm.rank == root else None, root) == {"turn": turn}
            else:
                assert comm.scatter(list(table + turn) if comm.rank == root else None, root) == comm.rank + turn
        return comm.steps

    answers = start(size, work).answers()
    assert len(set(answers)) == 1
    assert answers[0][0] >= (10_000 if size == 2 else 2_000)


def test_objects_longer_than_a_slot(start: Any) -> None:
    def work(comm: Communicator) -> None:
        everyone = range(comm.size)
        big = [np.arange(400_000 * (rank + 1)) + rank for rank in everyone]
        assert all(map(equal, comm.allgather(big[comm.rank]), big))
        assert equal(comm.bcast(big[1] if comm.rank == 1 else None, 1), big[1])
        assert equal(comm.scatter(big if comm.rank == 2 else None, 2), big[comm.rank])
        dealt = comm.alltoall([big[rank][: 200_000 * comm.rank] for rank in everyone])
        assert all(equal(item, big[comm.rank][: 200_000 * source]) for source, item in enumerate(dealt))
        gathered = comm.gather(big[comm.rank])
        assert (gathered is None) if comm.rank else all(map(equal, gathered, big))

    assert start(3, work).answers() == [None] * 3


def test_ranks_that_call_different_things_are_told_so(start: Any) -> None:
    def work(comm: Communicator) -> list[str]:
        told = []
        one = comm.rank == 1
        for call in (
            lambda: comm.Bcast(np.zeros(3, "f4")) if one else comm.Allreduce(IN_PLACE, np.zeros(4, "f4")),
            lambda: comm.Allreduce(IN_PLACE, np.zeros(400_000 - one)),
            lambda: comm.Allreduce(IN_PLACE, np.zeros(4), MAX if one else SUM),
            lambda: comm.Bcast(np.zeros(4), root=int(one)),
            lambda: comm.Barrier() if one else comm.allgather(1),
        ):
            with pytest.raises(ValueError, match="do not call the same") as caught:
                call()
            told.append(str(caught.value).split(": ", 1)[1])
        assert comm.allreduce(1) == 3  # the group is none the worse
        return told

    first, *others = start(3, work).answers()
    assert others == [first, first]
    assert first == [
        "rank 1 called Bcast of 3 float32 with root 0, ranks 0 and 2 called Allreduce of 4 float32 by SUM",
        "rank 1 called Allreduce of 399999 float64 by SUM, ranks 0 and 2 called Allreduce of 400000 float64 by SUM",
        "rank 1 called Allreduce of 4 float64 by MAX, ranks 0 and 2 called Allreduce of 4 float64 by SUM",
        "rank 1 called Bcast of 4 float64 with root 1, ranks 0 and 2 called Bcast of 4 float64 with root 0",
        "rank 1 called Barrier, ranks 0 and 2 called allgather",
    ]


def test_what_cannot_be_reduced_is_refused_before_any_turn(start: Any) -> None:
    def work(comm: Communicator) -> int:
        with pytest.raises(TypeError, match="PROD cannot reduce timedelta64"):
            comm.Allreduce(IN_PLACE, np.zeros(3, "m8[s]"), PROD)
        return comm.allreduce(1)

    assert start(2, work).answers() == [2, 2]


@pytest.mark.parametrize("killed", [0, 1, 2])
def test_kill_9_inside_a_collective_frees_the_peers(start: Any, killed: int, tmp_path: Path) -> None:
    def work(comm: Communicator) -> Any:
        array = np.ones(1 << 20)
        say_here(tmp_path, comm)
        try:
            while True:
                comm.Allreduce(IN_PLACE, array, MAX)
        except CommunicatorError as error:
            return time.time(), str(error), comm.steps[0]

    ranks = start(3, work)
    wait_until_here(tmp_path, 3)
    began = time.time()
    os.kill(ranks.processes[killed].pid, signal.SIGKILL)
    for rank in {0, 1, 2} - {killed}:
        freed, text, steps = ranks.answer(rank)
        assert text == f"Allreduce: rank {killed} left the group"
        assert freed - began < 0.5
        assert steps == -1 - rank  # never in step with anybody again
    ranks.processes[killed].wait()
    _nothing_is_left(ranks)


def test_a_rank_that_waits_long_is_freed_by_a_kill_too(start: Any, tmp_path: Path) -> None:
    def work(comm: Communicator) -> Any:
        say_here(tmp_path, comm)
        if comm.rank:
            time.sleep(60)
        with pytest.raises(CommunicatorError, match="Barrier: rank 1 left"):
            comm.Barrier()
        return time.time()

    ranks = start(2, work)
    wait_until_here(tmp_path, 2)
    began = time.time()
    ranks.processes[1].kill()
    assert ranks.answer(0) - began < 0.5


def test_a_forked_child_does_not_keep_a_killed_rank_alive(start: Any) -> None:
    def work(comm: Communicator) -> Any:
        child = os.fork() if comm.rank == 1 else -1
        if child == 0:
            time.sleep(2)
            os._exit(0)
        comm.Barrier()
        if comm.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(CommunicatorError, match="rank 1 left"):
            comm.Barrier()
        return time.time()

    began = time.time()
    assert start(2, work).answer(0) - began < 2


@pytest.mark.parametrize("operation", ["Barrier", "Allreduce"])
def test_ctrl_c_is_seen_at_once(start: Any, operation: str, tmp_path: Path) -> None:
    def work(comm: Communicator) -> Any:
        say_here(tmp_path, comm)
        if comm.rank:
            time.sleep(0.5)
            with pytest.raises(CommunicatorError, match="this group of ranks was ended"):
                comm.Barrier()
            return None
        try:
            comm.Barrier() if operation == "Barrier" else comm.Allreduce(IN_PLACE, np.zeros(1 << 20))
        except KeyboardInterrupt:
            seen = time.time()
        with pytest.raises(CommunicatorError, match="this group of ranks was ended"):
            comm.Barrier()
        return seen

    ranks = start(2, work)
    wait_until_here(tmp_path, 2)
    began = time.time()
    ranks.processes[0].send_signal(signal.SIGINT)
    assert ranks.answer(0) - began < 0.2  # 1 ms where nothing else runs
    assert ranks.answer(1) is None


def test_abort_from_another_thread(start: Any) -> None:
    def work(comm: Communicator) -> str:
        import threading

        if comm.rank == 0:
            threading.Timer(0.1, comm.abort).start()
        with pytest.raises(CommunicatorError) as caught:
            comm.Barrier() if comm.rank == 0 else comm.recv(0)
        return str(caught.value)

    ranks = start(2, work)
    assert ranks.answer(0) == "Barrier: this group of ranks was ended"


def test_long_temporary_folders_and_nothing_left(start: Any, tmp_path: Path, monkeypatch: Any) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    ranks = start(2, lambda comm: comm.allreduce(1))
    assert ranks.answers() == [2, 2]
    assert list(deep.iterdir()) == []


def test_headings_of_any_length_stay_apart() -> None:
    assert heading("Barrier").rstrip(b"\0") == b"Barrier"
    long, other = heading("x" * 500 + "a"), heading("x" * 500 + "b")
    assert len(long) == len(other) == HEADER_BYTES - 8
    assert long != other


def test_other_processors_are_refused(monkeypatch: Any) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not supported()


def _nothing_is_left(ranks: Ranks) -> None:
    assert ranks.meeting.folder is not None
    folder = Path(ranks.meeting.folder)
    assert not list(folder.parent.glob(f"{folder.name}*"))
    for process in ranks.processes:
        if process.poll() is None:
            maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
            shared = [line for line in maps if "paibook-ranks" in line]
            assert shared
            assert all("memfd:" in line and "(deleted)" in line for line in shared)  # a name in no folder


def test_memory_grows_with_the_ranks() -> None:
    assert Segment.bytes_for(4) > Segment.bytes_for(2) > 1 << 20
