"""Consistency models as values."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.errors import PlanError
from paibook.runtimes.ps.consistency import Consistency, VectorClock, answer_tick, may_read

clocks = st.lists(st.integers(0, 20), min_size=1, max_size=5)


@pytest.mark.parametrize(("kind", "staleness"), [("bps", 0), (None, 0), ("ssp", -1), ("ssp", 1.5), ("ssp", True)])
def test_what_cannot_be_meant_is_refused(kind: object, staleness: object) -> None:
    with pytest.raises(PlanError, match=r"--consistency takes bsp, ssp or asp|--staleness takes a whole"):
        Consistency.parse(kind, staleness)


def test_staleness_belongs_to_ssp_alone() -> None:
    assert Consistency.parse("bsp", 4) == Consistency("bsp", 0)
    assert Consistency.parse("ssp", 4) == Consistency("ssp", 4)


@given(clocks, st.integers(0, 20), st.integers(0, 5))
def test_who_may_read(values: list[int], clock: int, staleness: int) -> None:
    vector = VectorClock(tuple(values))
    assert may_read(Consistency("asp"), vector, clock)
    assert may_read(Consistency("bsp"), vector, clock) == all(value >= clock for value in values)
    assert may_read(Consistency("ssp", staleness), vector, clock) == all(v >= clock - staleness for v in values)


@given(clocks)
def test_the_slowest_worker_may_always_read_so_nobody_waits_in_a_circle(values: list[int]) -> None:
    vector = VectorClock(tuple(values))
    assert all(may_read(Consistency(kind), vector, vector.slowest) for kind in ("bsp", "ssp", "asp"))


@given(st.integers(1, 4), st.data())
def test_the_slowest_clock_never_falls_and_ends_after_all(workers: int, data: st.DataObject) -> None:
    vector, slowest = VectorClock.start(workers), [0]
    for _ in range(30):
        rank = data.draw(st.integers(0, workers - 1))
        if rank in vector.retired:
            continue
        told = vector.clocks[rank] + data.draw(st.integers(-1, 1))
        vector = vector.retire(rank) if data.draw(st.integers(0, 9)) == 0 else vector.advance(rank, told)
        slowest.append(vector.slowest)
    for rank in range(workers):
        vector = vector.retire(rank)
        slowest.append(vector.slowest)
    assert slowest == sorted(slowest)
    assert slowest[-1] > max(vector.clocks)  # also what was pushed in the clock a worker left in
    assert vector.finished


def test_only_bsp_buffers() -> None:
    assert [Consistency(kind).buffers for kind in ("bsp", "ssp", "asp")] == [True, False, False]


def test_under_bsp_all_are_told_at_the_same_clock() -> None:
    for kind, (a, b) in product(("bsp", "asp"), [(1, 0), (1, 1)]):
        told = answer_tick(Consistency(kind), VectorClock((a, b)), 1)
        assert told == (kind == "asp" or b == 1)
