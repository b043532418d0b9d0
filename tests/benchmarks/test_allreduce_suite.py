"""The all-reduce suite: a side is started, timed and checked; what fails says why."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import allreduce
from benchmarks.allreduce import PAIBOOK, SIDES, Starter
from benchmarks.allreduce_jobs import timing


def test_a_wrong_sum_is_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SIZES", {"4 B": (4, 2), "64 KB": (1 << 16, 2)})

    def add_up(array: Any) -> None:
        if array.size == 1:
            array *= 3  # of ranks 0 and 1, whose arrays are one and two times the same

    answers = timing.found(0, 2, add_up)
    assert answers["4 B"] is not None
    assert answers["64 KB"] is None


def test_every_size_is_a_measure_and_every_target_names_a_side() -> None:
    names = {measure.name for measure in allreduce.MEASURES}
    assert names == {*timing.SIZES, *(f"{size}, 4 ranks" for size in timing.AMONG_FOUR)}
    assert {peer for measure in allreduce.MEASURES for peer in measure.targets} <= {side.name for side in SIDES}


def test_commands_name_the_ranks_and_the_file() -> None:
    command = Starter("peer", "p", Path("/v/bin/python"), "job", ("mpiexec", "-n", "{ranks}")).command(4, Path("f"))
    assert command == ["/v/bin/mpiexec", "-n", "4", "/v/bin/python", "-m", "benchmarks.allreduce_jobs.job", "f"]


def test_a_side_that_cannot_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="no_such_side"):
        allreduce.turn(Starter("peer", "p", Path(sys.executable), "no_such_side"))


@pytest.mark.slow
def test_paibook_gives_right_answers() -> None:
    outcomes = allreduce.turn(PAIBOOK)
    assert set(outcomes) == {measure.name for measure in allreduce.MEASURES}
    assert all(outcome.value for outcome in outcomes.values())
