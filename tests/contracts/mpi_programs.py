"""Small programs over MPI's names, each giving what it saw on this rank; any implementation must give the same.

    mpiexec -n 3 python mpi_programs.py results.json

runs them on real MPI, through mpi4py, and writes every rank's results by program: that is how ``mpi_results.json``
was recorded, which ``test_mpi.py`` holds paibook's communicators to.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PROGRAMS: dict[str, Callable[[Any, Any], Any]] = {}


def program(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Note a program: a function of the module ``MPI`` and a communicator."""
    PROGRAMS[function.__name__] = function
    return function


@program
def operators_on_objects(MPI: Any, comm: Any) -> Any:
    mine = (comm.rank * 5 + 3) % 7
    seen = []
    for op in (MPI.SUM, MPI.PROD, MPI.MIN, MPI.MAX, MPI.BAND, MPI.BOR, MPI.BXOR):
        seen.append(comm.allreduce(mine, op))
        seen.append(comm.reduce(mine, op=op, root=comm.size - 1))
    for op in (MPI.LAND, MPI.LOR, MPI.LXOR):
        seen.append([bool(comm.allreduce(flag, op=op)) for flag in (comm.rank == 0, True, False, comm.rank)])
    seen.append(comm.allreduce([comm.rank]))
    return seen


@program
def located_extremes(MPI: Any, comm: Any) -> Any:
    best = comm.allreduce((float(comm.rank % 2), comm.rank), op=MPI.MAXLOC)
    least = comm.allreduce((-comm.rank % 2, comm.rank), op=MPI.MINLOC)
    pair = np.dtype([("value", "d"), ("index", "i")], align=True)
    mine = np.array([(comm.rank % 2, comm.rank), (5, comm.rank), (-comm.rank, 9)], pair)
    high, low = np.zeros_like(mine), np.zeros_like(mine)
    comm.Allreduce([mine, MPI.DOUBLE_INT], [high, MPI.DOUBLE_INT], op=MPI.MAXLOC)
    comm.Reduce([mine, MPI.DOUBLE_INT], [low, MPI.DOUBLE_INT], op=MPI.MINLOC, root=0)
    pairs = np.array([[comm.rank, 1], [7, comm.rank]], "i")
    comm.Allreduce(MPI.IN_PLACE, [pairs, 2, MPI.TWOINT], op=MPI.MAXLOC)
    return best, least, high.tolist(), low.tolist(), pairs.tolist()


@program
def operators_on_buffers(MPI: Any, comm: Any) -> Any:
    seen = []
    for code in ("b", "B", "h", "i", "l", "Q"):
        mine = ((np.arange(11) * 3 + comm.rank * 5) % 7).astype(code)
        for op in (MPI.SUM, MPI.PROD, MPI.MIN, MPI.MAX, MPI.BAND, MPI.BOR, MPI.BXOR, MPI.LAND, MPI.LOR, MPI.LXOR):
            result = np.zeros_like(mine)
            comm.Allreduce(mine, result, op=op)
            seen.append(result.tolist())
            comm.Reduce(mine, result, op=op, root=comm.size - 1)
            seen.append(result.tolist())
    complexes = np.full(3, 1 + 1j * comm.rank)
    comm.Allreduce(MPI.IN_PLACE, complexes, op=MPI.PROD)
    return seen, [(value.real, value.imag) for value in complexes.tolist()]


def _append(left: Any, right: Any, datatype: Any) -> Any:
    """The digits of one number after those of another: associative and not commutative."""
    if isinstance(left, int):
        return int(f"{left}{right}")
    first, then = np.frombuffer(left, "l"), np.frombuffer(right, "l")
    then[:] = [int(f"{a}{b}") for a, b in zip(first.tolist(), then.tolist(), strict=True)]
    return None


@program
def operators_of_the_users_own(MPI: Any, comm: Any) -> Any:
    op = MPI.Op.Create(_append, commute=False)
    mine = comm.rank + 2
    seen = [comm.allreduce(mine, op=op), comm.reduce(mine, op=op, root=0), comm.scan(mine, op), comm.exscan(mine, op)]
    numbers = np.array([mine, 10 + mine, 7], "l")
    result = np.zeros_like(numbers)
    comm.Allreduce([numbers, MPI.LONG], [result, MPI.LONG], op=op)
    seen.append(result.tolist())
    comm.Reduce(numbers, result, op=op, root=comm.size - 1)
    seen.append(result.tolist())
    comm.Scan(numbers, result, op=op)
    seen.append(result.tolist())
    part = np.zeros(1, "l")
    comm.Reduce_scatter_block(np.arange(comm.size) + mine, part, op=op)
    seen.append(part.tolist())
    op.Free()
    return seen


@program
def a_ring_and_a_line(MPI: Any, comm: Any) -> Any:
    rank, size = comm.Get_rank(), comm.Get_size()
    right, left = (rank + 1) % size, (rank - 1) % size
    status = MPI.Status()
    around = [rank]
    for _ in range(size - 1):
        around.append(comm.sendrecv(around[-1], dest=right, sendtag=4, source=left, recvtag=4, status=status))
    told = [status.Get_source(), status.Get_tag(), status.source == left] if size > 1 else []
    below = comm.sendrecv(
        rank, dest=rank + 1 if rank + 1 < size else MPI.PROC_NULL, source=rank - 1 if rank else MPI.PROC_NULL
    )
    mine, theirs = np.full(4, rank, "d"), np.zeros(4)
    comm.Sendrecv([mine, MPI.DOUBLE], dest=right, recvbuf=[theirs, MPI.DOUBLE], source=left)
    replaced = np.full(3, rank, "i")
    comm.Sendrecv_replace(replaced, dest=right, source=left)
    nothing = np.full(2, 8, "i")
    comm.Recv(nothing, source=MPI.PROC_NULL, status=status)
    comm.Send(nothing, dest=MPI.PROC_NULL)
    nobody = [comm.recv(source=MPI.PROC_NULL), status.Get_source() == MPI.PROC_NULL, status.Get_count(MPI.INT)]
    return around, told, below, theirs.tolist(), replaced.tolist(), nothing.tolist(), nobody


@program
def requests(MPI: Any, comm: Any) -> Any:
    rank, size = comm.rank, comm.size
    everyone = range(size)
    receives = [comm.irecv(source=other, tag=11) for other in everyone]
    sends = [comm.isend({"from": rank, "to": other}, dest=other, tag=11) for other in everyone]
    got = MPI.Request.waitall(receives)
    done, nothing = MPI.Request.testall(sends)
    while not done:
        done, nothing = MPI.Request.testall(sends)
    again = receives[0].wait(), receives[0].test(), receives[0] == MPI.REQUEST_NULL
    buffers = [np.zeros(3, "i") for _ in everyone]
    statuses = [MPI.Status() for _ in everyone]
    requests = [comm.Irecv(buffers[other], source=other, tag=2) for other in everyone]
    requests += [comm.Isend(np.full(min(other + 1, 3), rank, "i"), dest=other, tag=2) for other in everyone]
    order = set()
    for _ in requests:
        order.add(MPI.Request.Waitany(requests))
    early = comm.irecv(source=rank, tag=5)
    before = early.test()
    sent = [comm.isend(text, dest=rank, tag=5) for text in ("first", "second")]
    late = comm.recv(source=rank, tag=5)  # the receive that began earlier has the first
    MPI.Request.waitall(sent)
    cancelled = comm.irecv(source=rank, tag=99)
    cancelled.cancel()
    state = MPI.Status()
    cancelled.wait(state)
    empty = MPI.Request.waitany([MPI.REQUEST_NULL])[0] == MPI.UNDEFINED
    some = comm.irecv(source=rank, tag=6)
    sent = [comm.isend("some", dest=rank, tag=6)]
    indices, objects = MPI.Request.waitsome([MPI.REQUEST_NULL, some])
    MPI.Request.waitall(sent)
    return (
        got,
        [done, nothing == [None] * size],
        again,
        [buffer.tolist() for buffer in buffers],
        sorted(order),
        len(statuses),
        [before, early.wait(), late],
        [state.Is_cancelled(), empty],
        [indices, objects],
    )


@program
def probes_and_counts(MPI: Any, comm: Any) -> Any:
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    status = MPI.Status()
    nothing_yet = comm.iprobe(source=left, tag=77)
    sent = [comm.Isend([numbers := np.arange(5, dtype="i"), MPI.INT], dest=right, tag=7)]
    comm.Probe(source=left, tag=MPI.ANY_TAG, status=status)
    probed = status.Get_tag(), status.Get_count(MPI.INT), status.Get_count(MPI.BYTE), status.Get_source() == left
    room = np.full(8, -1, "i")
    comm.Recv(room, source=left, tag=7, status=status)
    counted = status.Get_count(MPI.INT), status.Get_elements(MPI.INT), status.count, status.Get_error()
    fraction = status.Get_count(MPI.DOUBLE) == MPI.UNDEFINED
    sent.append(comm.isend([comm.rank] * numbers.size, dest=right, tag=1))
    comm.probe(source=MPI.ANY_SOURCE, tag=1, status=status)
    found = status.source == left, status.tag, comm.iprobe(source=left, tag=1), comm.Iprobe(left, 2)
    object_sent = comm.recv(source=left, tag=1)
    MPI.Request.waitall(sent)
    return nothing_yet, probed, room.tolist(), counted, fraction, found, object_sent


@program
def synchronous_sends(MPI: Any, comm: Any) -> Any:
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    first = comm.irecv(source=left, tag=1)
    comm.ssend(("object", comm.rank), dest=right, tag=1)
    buffer = np.zeros(2)
    second = comm.Irecv(buffer, source=left, tag=2)
    comm.Ssend(np.full(2, comm.rank, "d"), dest=right, tag=2)
    second.Wait()
    third = comm.issend("later", dest=right, tag=3)
    waited = third.test()[0]
    comm.barrier()
    got = comm.recv(source=left, tag=3)
    third.wait()
    return first.wait(), buffer.tolist(), waited, got


@program
def prefixes(MPI: Any, comm: Any) -> Any:
    mine = np.arange(3) + comm.rank
    scanned, before = np.zeros(3, int), np.full(3, -1)
    comm.Scan(mine, scanned)
    comm.Exscan(mine, before, op=MPI.MAX)
    inplace = mine.copy()
    comm.Scan(MPI.IN_PLACE, inplace, op=MPI.PROD)
    after = mine.copy()
    comm.Exscan(MPI.IN_PLACE, after)
    texts = comm.scan(f"{comm.rank}"), comm.exscan(f"{comm.rank}"), comm.scan(comm.rank, op=MPI.MAX)
    shown = before.tolist() if comm.rank else None
    return scanned.tolist(), shown, inplace.tolist(), after.tolist() if comm.rank else None, texts


@program
def reductions_that_scatter(MPI: Any, comm: Any) -> Any:
    size, rank = comm.size, comm.rank
    counts = [other + 1 for other in range(size)]
    mine = np.arange(sum(counts), dtype="l") * (rank + 1)
    part = np.zeros(counts[rank], "l")
    comm.Reduce_scatter(mine, part, counts, op=MPI.SUM)
    without = np.zeros(counts[rank], "l")
    comm.Reduce_scatter(mine, without, recvcounts=counts, op=MPI.MAX)
    block = np.zeros(2)
    comm.Reduce_scatter_block(np.arange(2.0 * size) + rank, block)
    zeros = [2] + [0] * (size - 1)
    first = np.zeros(2 if rank == 0 else 0, "l")
    comm.Reduce_scatter(mine[:2].copy() if size > 1 else mine.repeat(2), first, zeros)
    return part.tolist(), without.tolist(), block.tolist(), first.tolist()


@program
def parts_of_unequal_size(MPI: Any, comm: Any) -> Any:
    size, rank = comm.size, comm.rank
    counts = [(other * 2) % 5 for other in range(size)]
    displs = [sum(counts[:other]) + other for other in range(size)]  # gaps of one
    whole = np.full(sum(counts) + size, -1, "i")
    mine = np.full(counts[rank], rank + 1, "i")
    seen = []
    for root in (0, size - 1):
        target = whole.copy() if rank == root else None
        comm.Gatherv(mine, [target, counts, displs, MPI.INT] if rank == root else None, root=root)
        seen.append(None if target is None else target.tolist())
        source = np.arange(whole.size, dtype="i") if rank == root else None
        received = np.zeros(counts[rank], "i")
        comm.Scatterv([source, (counts, displs), MPI.INT] if rank == root else None, received, root=root)
        seen.append(received.tolist())
    dense = np.zeros(sum(counts), "i")
    comm.Allgatherv([mine, MPI.INT], [dense, counts])
    seen.append(dense.tolist())
    gaps = whole.copy()
    gaps[displs[rank] : displs[rank] + counts[rank]] = rank + 1
    comm.Allgatherv(MPI.IN_PLACE, [gaps, counts, displs, MPI.INT])
    seen.append(gaps.tolist())
    sends = [rank + 1] * size
    outgoing = (np.arange(sum(sends)) + 100 * rank).astype("d")
    receives = np.array([other + 1 for other in range(size)])
    incoming = np.zeros(int(receives.sum()))
    comm.Alltoallv([outgoing, sends], [incoming, receives, None, MPI.DOUBLE])
    seen.append(incoming.tolist())
    spread = np.zeros(size + 1, "i")  # without counts: divided evenly, the first with one more
    comm.Allgatherv(np.full(1 + (rank < 1), rank, "i"), spread)
    seen.append(spread.tolist())
    return seen


@program
def buffer_specs(MPI: Any, comm: Any) -> Any:
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    source, target = np.arange(10, dtype="i") + comm.rank, np.zeros(10, "i")
    seen = []
    for send, recv in (
        (source, target),
        ([source, MPI.INT], [target, MPI.INT]),
        ([source, 4], [target, 4]),
        ([source, 4, MPI.INT], [target, 10, MPI.INT]),
        ((source, "i"), (target, "i")),
        ([source, MPI.BYTE], [target, MPI.BYTE]),
        ([source, 6, MPI.BYTE], [target, MPI.BYTE]),
        ([source, (3, 2), MPI.INT], [target, (3, 7), MPI.INT]),
    ):
        target[:] = -1
        comm.Sendrecv(send, dest=right, recvbuf=recv, source=left)
        seen.append(target.tolist())
    text = bytearray(b"abcdef") if comm.rank == 0 else bytearray(6)
    comm.Bcast([text, MPI.CHAR], root=0)
    seen.append(text.decode())
    table = np.zeros((comm.size, 2))
    comm.Allgather([np.full(2, comm.rank, "d"), MPI.DOUBLE], [table, MPI.DOUBLE])
    seen.append(table.tolist())
    loose = np.full(comm.size * 2 + 3, -1, "i")
    comm.Gather([source, 2, MPI.INT], [loose, 2, MPI.INT] if comm.rank == 0 else None)
    seen.append(loose.tolist())
    names = ["BYTE", "CHAR", "SHORT", "INT", "LONG", "FLOAT", "DOUBLE", "BOOL", "UINT8_T"]
    sizes = [getattr(MPI, name).Get_size() for name in names]
    return seen, sizes


@program
def in_place(MPI: Any, comm: Any) -> Any:
    size, rank = comm.size, comm.rank
    total = np.full(2, rank + 1)
    comm.Reduce(MPI.IN_PLACE if rank == 0 else total, total, op=MPI.SUM, root=0)
    gathered = np.full(size, -1)
    gathered[rank] = rank
    comm.Gather(MPI.IN_PLACE if rank == 0 else gathered[rank : rank + 1], gathered if rank == 0 else None)
    comm.Allgather(MPI.IN_PLACE, table := np.where(np.arange(size) == rank, rank * 10, 0))
    swapped = np.arange(size) + 10 * rank
    comm.Alltoall(MPI.IN_PLACE, swapped)
    dealt = np.arange(size) * 3
    own = np.zeros(1, int)
    comm.Scatter(dealt if rank == 0 else None, MPI.IN_PLACE if rank == 0 else own)
    first = total.tolist() if rank == 0 else None
    return first, gathered.tolist(), table.tolist(), swapped.tolist(), own.tolist()


@program
def collectives_in_the_background(MPI: Any, comm: Any) -> Any:
    size, rank = comm.size, comm.rank
    total, data = np.zeros(1000), np.full(3, rank)
    table, column, scanned = np.zeros((size, 2)), np.zeros(size, int), np.zeros(1, int)
    gathered = np.zeros(size, int) if rank == 0 else None
    part, block = np.zeros(1, int), np.zeros(1, int)
    spread = np.zeros(size * (size + 1) // 2, int)
    requests = [
        comm.Iallreduce(np.full(1000, rank + 1.0), total),
        comm.Ibcast(data, root=size - 1),
        comm.Iallgather(np.full(2, rank, "d"), table),
        comm.Ialltoall(np.arange(size) + 10 * rank, column),
        comm.Igather(np.array([rank]), gathered, root=0),
        comm.Iscatter(np.arange(size) * 2 if rank == 0 else None, part, root=0),
        comm.Iscan(np.array([rank]), scanned),
        comm.Ireduce_scatter_block(np.arange(size), block),
        comm.Iallgatherv(np.full(rank + 1, rank), [spread, [other + 1 for other in range(size)]]),
    ]
    blocking = comm.allreduce(rank)  # in between, and around them
    MPI.Request.Waitall(requests)
    barrier = comm.Ibarrier()
    while not barrier.Test():
        pass
    return (
        sorted(set(total.tolist())),
        data.tolist(),
        table.tolist(),
        column.tolist(),
        None if gathered is None else gathered.tolist(),
        part.tolist(),
        scanned.tolist(),
        block.tolist(),
        spread.tolist(),
        blocking,
    )


@program
def divided_ranks(MPI: Any, comm: Any) -> Any:
    rank, size = comm.rank, comm.size
    half = comm.Split(rank % 2, -rank)  # the other way round
    seen = [half.rank, half.size, half.allgather(rank), half.allreduce(rank)]
    sent = [comm.isend("parent", dest=rank, tag=3), half.isend("part", dest=half.rank, tag=3)]
    seen += [half.recv(source=MPI.ANY_SOURCE), comm.recv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG)]
    MPI.Request.waitall(sent)
    outside = comm.Split(MPI.UNDEFINED if rank == 0 else 1, rank)
    seen.append(outside == MPI.COMM_NULL)
    if outside != MPI.COMM_NULL:
        seen.append(outside.bcast(rank if outside.rank == 0 else None))
        outside.Free()
    copy = half.Dup()
    quarter = copy.Split(copy.rank // 2)
    seen.append([quarter.rank, quarter.gather(rank), quarter.scan(1)])
    buffer = np.full(2, rank, "d")
    half.Allreduce(MPI.IN_PLACE, buffer)
    copy.Bcast(data := np.full(2, rank), root=copy.size - 1)
    seen += [buffer.tolist(), data.tolist(), half.alltoall(list(range(half.size))), half.reduce(1, root=0)]
    alone = MPI.COMM_SELF
    seen += [alone.size, alone.allgather(rank)]
    half.Barrier()
    for part in (quarter, copy, half):
        part.Free()
    return seen, MPI.Comm.Get_size(comm) == size, isinstance(comm, MPI.Intracomm)


@program
def groups(MPI: Any, comm: Any) -> Any:
    everyone = comm.Get_group()
    some = everyone.Incl(list(range(comm.size))[::-2])
    rest = MPI.Group.Difference(everyone, some)
    seen: list[Any] = [some.Get_rank() == MPI.UNDEFINED, some.size, rest.Get_size(), everyone.Excl([0]).size]
    both, common = MPI.Group.Union(rest, some), MPI.Group.Intersection(some, everyone)
    seen += [both.Translate_ranks(None, everyone), common.Translate_ranks(list(range(common.size)), some)]
    part = comm.Create(some)
    if part != MPI.COMM_NULL:
        seen += [part.rank, part.allgather(comm.rank)]
        for _ in range(2):
            again = comm.Create_group(some, tag=3)
            seen.append(again.bcast(comm.rank, root=again.size - 1))
            again.Free()
    return seen


@program
def a_grid(MPI: Any, comm: Any) -> Any:
    dims = MPI.Compute_dims(comm.size, 2)
    grid = comm.Create_cart(dims, periods=[True, False], reorder=False)
    coords = grid.Get_coords(grid.rank)
    shifts = []
    for direction in (0, 1):
        source, dest = grid.Shift(direction, 1)
        shifts.append([None if end == MPI.PROC_NULL else end for end in (source, dest)])
        shifts.append(grid.sendrecv(coords, dest=dest, source=source))
    column = grid.Sub([True, False])
    seen = [list(coords), grid.Get_cart_rank(coords), grid.Get_dim(), grid.ndim, list(grid.dims), list(grid.coords)]
    topo = [[int(value) for value in part] for part in grid.Get_topo()]
    few = comm.Create_cart([1])
    return dims, seen, topo, shifts, column.allgather(coords), column.Get_coords(column.rank), few == MPI.COMM_NULL


@program
def grids_of_any_size(MPI: Any, comm: Any) -> Any:
    return [
        MPI.Compute_dims(number, wish)
        for number in (1, 2, 6, 7, 12, 16, 24, 36, 60)
        for wish in (1, 2, 3, [0, 1], [0, 0, 1])
    ]


@program
def a_matrix_times_a_vector(MPI: Any, comm: Any) -> Any:
    rows = 3
    columns = rows * comm.size
    matrix = (np.arange(rows * columns).reshape(rows, columns) + comm.rank).astype("d")
    vector = np.arange(rows, dtype="d") + comm.rank
    whole = np.zeros(columns)
    comm.Allgather([vector, MPI.DOUBLE], [whole, MPI.DOUBLE])
    return (matrix @ whole).tolist()


@program
def pi(MPI: Any, comm: Any) -> Any:
    steps = np.array(100 if comm.rank == 0 else 0, "i")
    comm.Bcast([steps, MPI.INT], root=0)
    width = 1.0 / int(steps)
    middles = (np.arange(comm.rank, int(steps), comm.size) + 0.5) * width
    mine, total = np.array((4 / (1 + middles**2)).sum() * width), np.array(0.0)
    comm.Reduce([mine, MPI.DOUBLE], [total, MPI.DOUBLE], op=MPI.SUM, root=0)
    return round(float(total), 9)


@program
def work_for_whoever_is_free(MPI: Any, comm: Any) -> Any:
    """Rank 0 hands out numbers to whoever asks, and a tag that ends it."""
    if comm.size == 1:
        return None
    status = MPI.Status()
    if comm.rank:
        comm.send(None, dest=0, tag=0)
        done = 0
        while True:
            number = comm.recv(source=0, tag=MPI.ANY_TAG, status=status)
            if status.Get_tag() == 2:
                comm.send(done, dest=0, tag=3)
                return None
            done += 1
            comm.send(number**2, dest=0, tag=1)
    results, waiting, active = [], list(range(20)), comm.size - 1
    while active:
        answer = comm.recv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG, status=status)
        if status.Get_tag() == 3:
            active -= 1
            continue
        if status.Get_tag() == 1:
            results.append(answer)
        if waiting:
            comm.send(waiting.pop(), dest=status.Get_source(), tag=1)
        else:
            comm.send(None, dest=status.Get_source(), tag=2)
    return sorted(results)


def plain(value: Any) -> Any:
    """A result as JSON keeps it."""
    return json.loads(json.dumps(value))


def main(path: str) -> None:
    """Run every program on real MPI and write the results."""
    from mpi4py import MPI

    results = {}
    for name, function in PROGRAMS.items():
        answers = MPI.COMM_WORLD.gather(plain(function(MPI, MPI.COMM_WORLD)), root=0)
        if answers is not None:
            results[name] = answers
    if MPI.COMM_WORLD.rank == 0:
        Path(path).write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
