"""The order in which a stage's tasks begin."""

from __future__ import annotations

from paibook.runtimes.mapreduce.scheduler import Call, _lightest_first


def test_the_heaviest_tasks_begin_and_equals_keep_their_order() -> None:
    weights = [3, 9, 0, 3, 9]
    waiting = _lightest_first([Call(number, print, (), weight) for number, weight in enumerate(weights)])
    assert [waiting.pop().number for _ in weights] == [1, 4, 0, 3, 2]
