"""Weights asked for ahead: used once, by the pull of the same keys, unless they are too stale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from paibook.errors import TableError
from paibook.runtimes.ps.client import ParameterServer, Table
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.pull_tickets import MAX_PREFETCHED
from tests.paibook.runtimes.ps.server_threads import serving


def counting(ps: ParameterServer, shape: int = 4) -> Table:
    return ps.table("w", shape=shape, dtype="int64")


@pytest.fixture(params=[1, 2])
def ps(request: pytest.FixtureRequest) -> Iterator[ParameterServer]:
    with serving(Consistency("asp"), 1, request.param) as run:
        ps = run.connect(0)
        yield ps
        ps.close()


def test_a_pull_uses_what_was_prefetched_once(ps: ParameterServer) -> None:
    w = counting(ps)
    keys = np.array([3, 0])
    w.prefetch(keys)
    keys[:] = 1  # the ticket has its own
    w.push([3], [5])
    assert w.pull([3, 0]).tolist() == [0, 0]  # as asked, before the push
    assert w.pull([3, 0]).tolist() == [5, 0]
    w.prefetch()
    w.push([0], [7])
    assert w.pull().tolist() == [0, 0, 0, 5]
    assert w.pull().tolist() == [7, 0, 0, 5]


def test_a_ticket_gives_its_own_weights_and_no_pull_gets_them_then(ps: ParameterServer) -> None:
    w = counting(ps)
    first, second = w.prefetch([2]), w.prefetch([2])
    w.push([2], [1])
    ps.wait(second)
    assert second.result().tolist() == [0]
    assert second.result().tolist() == [0]
    w.wait(first)
    assert w.pull([2]).tolist() == [0]
    assert w.pull([2]).tolist() == [1]


def test_tickets_nobody_uses_are_forgotten(ps: ParameterServer) -> None:
    w = counting(ps, 100)
    for row in range(MAX_PREFETCHED + 1):
        w.prefetch([row])
    w.push([0, 1], [1, 1])
    assert w.pull([0]).tolist() == [1]
    assert w.pull([1]).tolist() == [0]


def test_large_tickets_and_large_pushes_do_not_wait_for_each_other(ps: ParameterServer) -> None:
    w = counting(ps, 2_000_000)
    tickets = [w.prefetch() for _ in range(3)]
    one = np.ones(2_000_000, np.int64)
    pushes = [w.push(one) for _ in range(3)]
    keys = np.arange(0, 2_000_000, 2)
    tickets += [w.prefetch(keys), w.prefetch(keys + 1)]
    w.wait(pushes[0])
    assert [int(ticket.result().sum()) for ticket in tickets] == [0, 0, 0, 3_000_000, 3_000_000]


def test_wrong_keys_are_refused_at_once(ps: ParameterServer) -> None:
    w = counting(ps)
    for keys in ([4], [0.5]):
        with pytest.raises(TableError, match="w"):
            w.prefetch(keys)


@pytest.mark.parametrize(("consistency", "clocks"), [(Consistency("bsp"), 0), (Consistency("ssp", 2), 2)])
def test_what_is_too_stale_is_pulled_again(consistency: Consistency, clocks: int) -> None:
    with serving(consistency, 1) as run:
        ps = run.connect(0)
        w = counting(ps)
        for late in (clocks, clocks + 1):
            ticket = w.prefetch()
            before = w.pull([0]).tolist()[0]
            for _ in range(late):
                w.push([0], [1])
                ps.clock()
            expected = before if late == clocks else before + late
            assert ticket.result()[0] == expected
            assert w.staleness <= clocks
        ps.close()


def test_weights_go_where_the_caller_wants_them(ps: ParameterServer) -> None:
    w = counting(ps)
    w.push([5, 6, 7, 8])
    whole, rows = np.zeros(4, np.int64), np.zeros(3, np.int64)
    assert w.pull(out=whole) is whole
    assert w.pull([3, 0, 3], out=rows) is rows
    assert (whole.tolist(), rows.tolist()) == ([5, 6, 7, 8], [8, 5, 8])
    w.prefetch()
    w.push([1, 1, 1, 1])
    assert w.pull(out=whole) is whole
    assert whole.tolist() == [5, 6, 7, 8]  # as prefetched
    assert w.pull(out=whole).tolist() == [6, 7, 8, 9]


def test_what_weights_cannot_go_into_is_refused(ps: ParameterServer) -> None:
    w, e = counting(ps), ps.table("e", sparse=True)
    with pytest.raises(TableError, match=r"these weights are int64 of shape .4,.; out= is float64 of shape .4,."):
        w.pull(out=np.zeros(4))
    with pytest.raises(TableError, match=r"these weights are int64 of shape .2,.; out= is int64 of shape .4,."):
        w.pull([1, 2], out=np.zeros(4, np.int64))
    with pytest.raises(TableError, match="out= must be C-contiguous and writable"):
        w.pull(out=np.zeros(8, np.int64)[::2])
    with pytest.raises(TableError, match="out= takes a NumPy array; got list"):
        w.pull(out=[0] * 4)  # type: ignore[arg-type]
    with pytest.raises(TableError, match=r"sparse: pull.. without keys would mean every possible key"):
        e.pull(out=np.zeros(1, np.float32))


def test_pushes_of_the_whole_table_one_after_the_other_are_each_done(ps: ParameterServer) -> None:
    w = counting(ps)
    for turn in range(5):
        w.push(np.arange(4) * 10**turn)
    assert w.pull().tolist() == [0, 11111, 22222, 33333]
