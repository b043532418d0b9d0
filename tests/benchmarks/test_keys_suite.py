"""The keys suite: every side is checked before its time counts, and what does not fit is left out by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import keys
from benchmarks.keys_jobs import dict_side, paibook_side, work


@pytest.mark.parametrize("kind", work.KINDS, ids=lambda kind: kind.optimizer)
@pytest.mark.parametrize("make", [paibook_side.Shard, dict_side.Rows])
def test_a_side_grows_and_is_right(
    make: type, kind: work.Kind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(work, "BATCH", 300)
    file = tmp_path / "found.json"
    monkeypatch.setattr("sys.argv", ["side", kind.name, "1000", str(file)])
    work.run(make, lambda table: 5000)
    found = json.loads(file.read_text())
    assert found.pop("says") == 5
    assert set(found) == set(keys.UNITS)
    assert all(found[what] > 0 for what in (work.FILLING, work.PUSHES, work.PULLS))


@pytest.mark.parametrize("kind", work.KINDS, ids=lambda kind: kind.optimizer)
def test_sides_step_duplicates_alike(kind: work.Kind) -> None:
    tables = [make(kind) for make in (paibook_side.Shard, dict_side.Rows)]
    rng = np.random.default_rng(0)
    for _ in range(5):
        some = work.keys(rng.integers(0, 50, 100))
        gradient = rng.standard_normal((100, kind.width)).astype(np.float32)
        for table in tables:
            table.push(some, gradient.copy())
    ours, theirs = (table.pull(work.keys(np.arange(60))) for table in tables)
    assert np.allclose(ours, theirs, 1e-3, 1e-5)


def test_wrong_weights_count_for_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Idle(paibook_side.Shard):
        def push(self, keys: work.Keys, gradient: work.Array) -> None:
            super().push(keys, 0 * gradient)

    monkeypatch.setattr(work, "BATCH", 300)
    monkeypatch.setattr("sys.argv", ["side", "width 16, Adagrad", "1000", str(tmp_path / "found.json")])
    with pytest.raises(ValueError, match=r"weights of width 16, Adagrad, 1000 keys, are wrong: 0\.0 where -0\.01"):
        work.run(Idle)


def test_what_does_not_fit_is_left_out_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keys, "NEEDED", 1e9)
    assert keys.turn(keys.SIDES[0]) == {}
    assert "skipped: width 1, FTRL, 100M keys: that takes" in capsys.readouterr().out


def test_the_least_is_a_key_its_weights_and_their_state() -> None:
    least = {name: outcome.value for name, outcome in keys.turn(keys.SIDES[-1]).items()}
    assert least["memory per key, width 1, FTRL, 100M keys"] == 20
    assert least["memory per key, width 16, Adagrad, 10M keys"] == 136
    assert len(keys.MEASURES) == 28
