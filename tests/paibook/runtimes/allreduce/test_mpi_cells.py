"""Programs as MPI tutorials have them, as cells; and communicators that end with their world."""

from __future__ import annotations

import time
from typing import Any

import pytest

from paibook.comms import CommunicatorError
from paibook.errors import RankLost, RunCancelled, UserCodeError

HEAD = """from paibook import MPI
import numpy as np
comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
"""

CELLS = {
    "hello": (
        "(MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.size, MPI.COMM_SELF.size, len(MPI.Get_processor_name()) > 0)",
        lambda rank: (rank, 3, 1, True),
    ),
    "a dictionary from one to another": (
        """
if rank == 0:
    request = comm.isend({"a": 7, "b": 3.14}, dest=1, tag=11)
    request.wait()
    data = None
elif rank == 1:
    data = comm.irecv(source=0, tag=11).wait()
else:
    data = "not asked"
data
""",
        lambda rank: [None, {"a": 7, "b": 3.14}, "not asked"][rank],
    ),
    "an array, with its type named and found": (
        """
if rank == 0:
    comm.Send([np.arange(1000, dtype="i"), MPI.INT], dest=1, tag=77)
    comm.Send(np.arange(100, dtype=np.float64), dest=1, tag=13)
    answer = None
elif rank == 1:
    data, more = np.empty(1000, dtype="i"), np.empty(100)
    comm.Recv([data, MPI.INT], source=0, tag=77)
    comm.Recv(more, source=0, tag=13)
    answer = int(data.sum()), float(more.sum())
else:
    answer = None
answer
""",
        lambda rank: (499500, 4950.0) if rank == 1 else None,
    ),
    "broadcast, scatter, gather": (
        """
key = comm.bcast({"key": [7, 2.72]} if rank == 0 else None, root=0)
square = comm.scatter([(i + 1) ** 2 for i in range(size)] if rank == 0 else None, root=0)
gathered = comm.gather(square, root=0)
received = np.empty(4, dtype="i")
comm.Scatter(np.arange(size * 4, dtype="i").reshape(size, 4) if rank == 0 else None, received, root=0)
key["key"][0], square, gathered, received.tolist()
""",
        lambda rank: (7, (rank + 1) ** 2, [1, 4, 9] if rank == 0 else None, [4 * rank + i for i in range(4)]),
    ),
    "a matrix times a vector": (
        """
def times(A, x):
    m = A.shape[0]
    whole = np.zeros(m * size, dtype="d")
    comm.Allgather([x, MPI.DOUBLE], [whole, MPI.DOUBLE])
    return A @ whole
times(np.ones((2, 2 * size)) * (rank + 1), np.full(2, rank + 1.0)).tolist()
""",
        lambda rank: [12.0 * (rank + 1)] * 2,
    ),
    "pi": (
        """
n = comm.bcast(200 if rank == 0 else None, root=0)
h = 1.0 / n
mine = sum(4.0 / (1.0 + (h * (i + 0.5)) ** 2) for i in range(rank, n, size)) * h
started = MPI.Wtime()
total = comm.reduce(mine, op=MPI.SUM, root=0)
abs(total - np.pi) < 1e-4 and MPI.Wtime() >= started if rank == 0 else total
""",
        lambda rank: True if rank == 0 else None,
    ),
    "a ring": (
        """
passed = rank
for step in range(size):
    passed = comm.sendrecv(passed, dest=(rank + 1) % size, source=(rank - 1) % size)
passed, comm.scan(1), comm.allreduce((rank % 2, rank), op=MPI.MAXLOC)
""",
        lambda rank: (rank, rank + 1, (1, 1)),
    ),
    "rows and columns": (
        """
grid = comm.Create_cart((size, 1), periods=(True, False))
source, dest = grid.Shift(0, 1)
halo = np.empty(2)
grid.Sendrecv(np.full(2, float(rank)), dest=dest, recvbuf=halo, source=source)
halo.tolist()
""",
        lambda rank: [(rank - 1.0) % 3] * 2,
    ),
    "unequal parts, and the rest meanwhile": (
        """
counts = [1, 2, 3]
whole = np.empty(6)
request = comm.Iallgatherv(np.full(counts[rank], rank + 0.5), [whole, counts])
total = np.zeros(1)
comm.Allreduce(np.ones(1), total)
request.Wait()
whole.tolist(), total.tolist()
""",
        lambda rank: ([0.5, 1.5, 1.5, 2.5, 2.5, 2.5], [3.0]),
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_tutorials_on_threads(inline: Any, name: str) -> None:
    source, expected = CELLS[name]
    assert inline.run(HEAD + source, workers=3).values == {rank: expected(rank) for rank in range(3)}


@pytest.mark.slow
def test_tutorials_on_processes(embedded: Any) -> None:
    for name, (source, expected) in CELLS.items():
        values = embedded.run(HEAD + source, workers=3).values
        assert values == {rank: expected(rank) for rank in range(3)}, name


@pytest.fixture(params=["inline", pytest.param("embedded", marks=pytest.mark.slow)])
def bench(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


MAKE_PART = "part = comm.split(0 if rank < 2 else 1, rank); kept = rank\n"


def test_a_part_lives_on_in_later_cells(bench: Any) -> None:
    bench.run(MAKE_PART, workers=3)
    assert bench.run("part.allgather(rank)", workers=3).values == {0: [0, 1], 1: [0, 1], 2: [2]}
    with pytest.raises(UserCodeError, match="NameError"):
        bench.run("part.allreduce(1); a_typo_on_every_rank", workers=3)
    assert bench.run("part.allreduce(1), comm.allreduce(1)", workers=3).values == {0: (2, 3), 1: (2, 3), 2: (1, 3)}


SPIN = "import time\nfor _ in range(6000): time.sleep(0.01)"
WAITS = {
    "a collective": "part.barrier()",
    "a receive": "part.recv()",
    "a request": "part.irecv().wait()",
    "a synchronous send": "part.ssend(1, 0)",
    "a probe": "part.probe()",
    "any of several requests": "MPI.Request.waitany([part.irecv(), part.irecv()])",
    "a collective in the background": "part.Ibarrier().wait()",
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_failed_cell_frees_a_rank_that_waits_in_a_part(bench: Any, wait: str) -> None:
    bench.run("from paibook import MPI\n" + MAKE_PART, workers=3)
    started = time.monotonic()
    with pytest.raises(UserCodeError, match="rank 2: ValueError: boom"):
        bench.run(f"if rank == 2: raise ValueError('boom')\nif rank == 1: {WAITS[wait]}", workers=3)
    assert time.monotonic() - started < 10
    with pytest.raises(UserCodeError, match="ended"):
        bench.run("part.allgather(1)", workers=3)
    assert bench.run(MAKE_PART + "kept, part.allreduce(1)", workers=3).values == {0: (0, 2), 1: (1, 2), 2: (2, 1)}


@pytest.mark.parametrize("wait", WAITS)
def test_stop_frees_a_rank_that_waits_in_a_part(bench: Any, wait: str) -> None:
    bench.run("from paibook import MPI\n" + MAKE_PART, workers=3)
    error = bench.cancelled(f"if rank == 1: {WAITS[wait]}\nprint('here')\n{SPIN}", workers=3)
    assert isinstance(error, RunCancelled)
    assert str(error) == "the run was stopped; the ranks kept their variables"
    assert bench.run(MAKE_PART + "kept, part.allreduce(1)", workers=3).values == {0: (0, 2), 1: (1, 2), 2: (2, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("wait", ["part.barrier()", "part.recv(source=0)", "part.Ibarrier().wait()"])
def test_a_killed_rank_frees_those_in_its_part_and_in_others(embedded: Any, wait: str) -> None:
    embedded.run("part = comm.split(rank % 2, 0)", workers=3)
    with pytest.raises(RankLost, match="rank 2"):
        embedded.run(f"import os\nif rank == 2: os._exit(3)\n{wait}\ncomm.barrier()", workers=3)
    assert embedded.run("comm.split(rank % 2, 0).allreduce(1)", workers=3).values == {0: 2, 1: 1, 2: 2}


def test_what_was_begun_and_never_ended_does_not_meet_the_next_cell(bench: Any) -> None:
    for left_over in ("comm.irecv(source=0)", "comm.isend(1, dest=0)", "comm.Ibarrier() if rank else None"):
        with pytest.raises(UserCodeError, match="NameError"):
            bench.run(f"{left_over}\na_typo_on_every_rank")
        answer = bench.run("comm.Ibarrier().wait()\ncomm.sendrecv(rank, dest=1 - rank, source=1 - rank)")
        assert answer.values == {0: 1, 1: 0}


def test_abort_ends_the_cell_everywhere_and_names_its_rank(bench: Any) -> None:
    with pytest.raises(UserCodeError, match=r"rank 1 called Abort\(7\) on MPI_COMM_WORLD"):
        bench.run("if rank == 1: comm.Abort(7)\ncomm.barrier()")
    assert bench.run("comm.allreduce(1)").values == {0: 2, 1: 2}


def test_there_is_no_world_outside_a_rank() -> None:
    from paibook import MPI

    with pytest.raises(CommunicatorError, match="on ranks only: run this in a %%pai_allreduce cell"):
        MPI.COMM_WORLD
    with pytest.raises(AttributeError, match="no Win, that is, no memory windows: use %%pai_ps"):
        MPI.Win
