"""The curves suite: every side runs the same cell but for what it logs."""

from __future__ import annotations

import pytest

from benchmarks import curves
from benchmarks.curves import SIDES, cell, turn
from paibook_magics.options import parser


def test_the_cells_are_alike_but_for_what_they_log() -> None:
    with_metrics, without = cell(SIDES[0].log, 2, 10), cell("pass", 2, 10)
    assert with_metrics.replace(SIDES[0].log, "pass") == without
    line, body = with_metrics.split("\n", 1)
    assert parser("pai_allreduce").parse_line(line.removeprefix("%%pai_allreduce")).workers == 2
    compile(body, "cell", "exec")


@pytest.mark.slow
def test_a_turn_says_how_long_a_step_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "STEPS", 50)
    monkeypatch.setattr(curves, "RANKS", (1,))
    (outcome,) = turn(SIDES[1]).values()
    assert outcome.value is not None
    assert outcome.value > 0
