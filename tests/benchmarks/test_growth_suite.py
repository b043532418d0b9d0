"""The growth suite: what it times is checked first, its sides are programs that may fail, its picture shows each."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from benchmarks import growth, growth_plot, processes
from benchmarks.growth_jobs import operations

RANKS = 3


def on_threads(monkeypatch: pytest.MonkeyPatch, wrong: float = 0.0) -> list[Any]:
    """What ``collectives`` gives on ranks that are threads; their sum is off by ``wrong``."""
    monkeypatch.setattr(operations, "SECONDS", 0.0)
    barrier = threading.Barrier(RANKS, timeout=30)
    brought: list[Any] = [None] * RANKS
    found: list[Any] = [None] * RANKS

    def rank(number: int) -> None:
        def add_up(array: Any) -> None:
            brought[number] = array.copy()
            barrier.wait()
            array[:] = sum(brought) + wrong
            barrier.wait()

        try:
            found[number] = operations.collectives(number, RANKS, barrier.wait, add_up)
        except ValueError as error:
            found[number] = error

    threads = [threading.Thread(target=rank, args=(number,), daemon=True) for number in range(RANKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_ranks_agree_on_what_they_found(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = on_threads(monkeypatch)
    assert set(first) == {operations.BARRIER, operations.ALLREDUCE}
    assert all(seconds > 0 for seconds in first.values())
    assert others == [first] * (RANKS - 1)


def test_a_wrong_sum_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [str(error) for error in on_threads(monkeypatch, wrong=1.0)] == [
        f"rank {rank} got 4.0 where 3.0 is right" for rank in range(RANKS)
    ]


def test_a_side_that_fails_says_how() -> None:
    python = [sys.executable, "-c"]
    wrote = "import sys, pathlib; pathlib.Path(sys.argv[-1]).write_text('[1]')"
    assert processes.run([*python, wrote], {}, 60) == [1]
    with pytest.raises(RuntimeError, match="no such rank"):
        processes.run([*python, "raise SystemExit('no such rank')"], {}, 60)
    with pytest.raises(RuntimeError, match=r"not done after 0\.2 s"):
        processes.run([*python, "import time; time.sleep(60)"], {}, 0.2)


def test_every_measure_has_its_target() -> None:
    targets = {measure.name: measure.target.text(measure.better, measure.unit) for measure in growth.MEASURES}
    assert len(targets) == 20
    assert (targets["no-op, 2 ranks"], targets["barrier, 32 ranks"]) == ("<= 10 ms", "<= 1.05x")


def test_the_picture_names_panels_and_sides() -> None:
    points = [
        growth_plot.Point(panel, side, ranks, 0.1 * ranks)
        for panel in ("ready ranks (s)", "no-op (ms)")
        for side in ("paibook", "ipyparallel")
        for ranks in growth.SIZES
    ]
    drawn = growth_plot.svg(points)
    assert all(f">{word}</text>" in drawn for word in ("ready ranks (s)", "no-op (ms)", "paibook", "ipyparallel", "32"))
