"""The training suite's reference is what ranks that add up their gradients come to."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from benchmarks.training_jobs import reference, steps


def test_two_ranks_come_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "ROWS", 2000)
    monkeypatch.setattr(steps, "FEATURES", 20)
    barrier = threading.Barrier(2, timeout=30)
    brought: list[Any] = [None, None]
    found: list[Any] = [None, None]

    def rank(number: int) -> None:
        def add_up(array: Any) -> None:
            brought[number] = array.copy()
            barrier.wait()
            array[:] = brought[0] + brought[1]
            barrier.wait()

        found[number] = steps.logistic(number, 2, add_up)

    threads = [threading.Thread(target=rank, args=(number,), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    expected = reference._logistic()
    assert [loss for _, loss in found] == pytest.approx([expected, expected], abs=1e-5)
    assert expected < 0.693  # it has learned
    assert all(seconds > 0 for seconds, _ in found)


def test_lenet_learns() -> None:
    pytest.importorskip("torch")
    assert reference._lenet() < 2.31
