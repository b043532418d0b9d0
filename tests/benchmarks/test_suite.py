"""Sides take their turns round by round; one that is missing or fails does not stop the others."""

from pathlib import Path

import pytest

from benchmarks import suite
from benchmarks.comparison import Target
from benchmarks.sides import PAIBOOK, Side
from benchmarks.suite import Measure, Outcome

MEASURE = Measure("work", "s", Target(1.0))
MISSING = Side("nobody", "nobody", Path("no-such-python"), (), str)
PEER = Side("peer", "psutil", PAIBOOK.python, (), str)


def test_turns_alternate_and_a_missing_peer_is_skipped_by_name(capsys: pytest.CaptureFixture[str]):
    order = []

    def turn(side: Side) -> dict[str, Outcome]:
        order.append(side.name)
        return {"work": Outcome(float(len(order)))}

    record = suite.run([PAIBOOK, PEER, MISSING], [MEASURE], turn, rounds=2)
    assert order == ["paibook", "peer", "paibook", "peer"]
    assert record.values("peer", "work") == [2.0, 4.0]
    assert "skipped: nobody" in capsys.readouterr().out
    (row,) = suite.comparisons(record, [MEASURE], [PAIBOOK, PEER, MISSING])
    assert (row.peer, row.ratio, row.ours) == ("peer", 0.625, 2.0)
    assert set(row.versions) == {"paibook", "peer"}


def test_a_side_that_fails_its_turn_is_reported_and_the_others_go_on(capsys: pytest.CaptureFixture[str]):
    def turn(side: Side) -> dict[str, Outcome]:
        if side is PEER:
            raise RuntimeError("no answer from every rank")
        return {"work": Outcome(0.5, "labelled")}

    record = suite.run([PAIBOOK, PEER], [MEASURE], turn, rounds=1)
    assert record.values("peer", "work") == [None]
    assert record.note("peer", "work") == "failed"
    assert record.note("paibook", "work") == "labelled"
    assert "peer failed its turn: no answer" in capsys.readouterr().out


def test_results_are_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(suite, "RESULTS", tmp_path)
    monkeypatch.setattr(suite.document, "update", lambda name, body: (tmp_path / "doc.md").write_text(body))
    record = suite.run([PAIBOOK, PEER], [MEASURE], lambda side: {"work": Outcome(0.5)}, rounds=2)
    rows = suite.comparisons(record, [MEASURE], [PAIBOOK, PEER])
    suite.publish("cells", record, rows, [MEASURE], "A note.")
    assert (tmp_path / "cells.json").exists()
    assert "2 turns each. A note." in (tmp_path / "doc.md").read_text()


def test_a_failed_turn_says_nothing_of_what_the_side_does_not_do():
    turns = [{"a": suite.Outcome(1.0)}, {"a": suite.Outcome(None, "failed"), "b": suite.Outcome(None, "failed")}]
    suite._drop_foreign(turns)
    assert [list(turn) for turn in turns] == [["a"], ["a"]]
    alone = [{"a": suite.Outcome(None, "failed")}]
    suite._drop_foreign(alone)
    assert list(alone[0]) == ["a"]
