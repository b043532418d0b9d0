"""Checkpoints: whole or not there, exact, and good for any number of servers; bad folders are refused with a reason."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from paibook.errors import PlanError, RunError, UserCodeError
from paibook.runtimes.ps import checkpoints
from paibook.runtimes.ps.driver import Driver
from paibook.runtimes.ps.ledger import Ledger
from paibook.runtimes.ps.messages import Saving

CELL = """
    import numpy as np

    def train(ps):
        w = ps.table("w", shape=(11, 3), optimizer=pai.Adagrad(lr=0.5), init=pai.Normal(scale=1.0, seed=4))
        e = ps.table("e", sparse=True, width=2, dtype="float64", optimizer=pai.FTRL(alpha=0.5))
        keys = np.arange(20) * 10**7 + rank
        for clock in ps.clocks(until):
            w.push(w.pull() - clock)
            e.push(keys, e.pull(keys) - 1 - rank)
            ran.append(clock)
        return list(ran)
"""


def run(bench: Any, folder: Path, until: int, **options: Any) -> Any:
    cell = CELL.replace("def train", "ran = []\n\n    def train")
    context = bench.context(until=until)
    return bench.run(cell, context, checkpoint=str(folder), **{"checkpoint_every": 4, **options})


@pytest.mark.parametrize(("before", "after"), [(2, 2), (3, 1), (1, 4)])
@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_a_run_goes_on_from_it_with_any_number_of_servers(
    bench: Any, tmp_path: Path, before: int, after: int, consistency: str
) -> None:
    whole = run(bench, tmp_path / "whole", 10, servers=before, workers=1, consistency=consistency)
    first = run(bench, tmp_path / "parts", 8, servers=before, workers=1, consistency=consistency)
    assert first.returned[0] == list(range(8))
    manifest = json.loads((tmp_path / "parts" / "manifest.json").read_text())
    assert (manifest["clock"], manifest["partitions"]) == (8, before)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["clock-00000008", "manifest.json"]
    second = run(bench, tmp_path / "parts", 10, servers=after, workers=1, consistency=consistency)
    assert second.returned[0] == [8, 9]
    assert any("goes on from the checkpoint of clock 8" in str(event.data) for event in bench.events)
    assert np.array_equal(second.tables["w"], whole.tables["w"])
    assert np.array_equal(second.tables["e"][0], whole.tables["e"][0])
    assert np.array_equal(second.tables["e"][1], whole.tables["e"][1])


def test_its_files_are_ordinary_parquet(bench: Any, tmp_path: Path) -> None:
    run(bench, tmp_path, 4, servers=2, workers=2)
    parts = sorted((tmp_path / "clock-00000004").glob("0.part-*.parquet"))
    assert len(parts) == 2
    table = pyarrow.parquet.read_table(parts[1])
    assert table.column_names == ["key", "weights", "state.total"] or table.column_names[:2] == ["key", "weights"]
    assert table["key"].to_pylist() == [5, 6, 7, 8, 9, 10]
    assert np.asarray(table["weights"].to_pylist()).shape == (6, 3)


def test_of_two_checkpoints_under_bsp_the_later_is_that_of_one_clock(bench: Any, tmp_path: Path) -> None:
    run(bench, tmp_path, 7, servers=2, workers=3)
    stopped = run(bench, tmp_path / "other", 4, servers=2, workers=3)
    again = run(bench, tmp_path, 4, servers=3, workers=3, checkpoint_every=0)
    assert again.returned == ([],) * 3
    assert np.array_equal(again.tables["w"], stopped.tables["w"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"w", shape=(11, 3)', '"v", shape=(11, 3)'), "is another program's: its tables are 'w', 'e'"),
        (("shape=(11, 3)", "shape=(12, 3)"), r"has it otherwise: now shape \(12, 3\) instead of \(11, 3\)"),
        (("lr=0.5", "lr=0.25"), "has it otherwise: now optimizer"),
    ],
)
def test_one_of_another_program_is_refused(bench: Any, tmp_path: Path, change: tuple[str, str], message: str) -> None:
    run(bench, tmp_path, 4)
    cell = CELL.replace("ran.append(clock)", "pass").replace("list(ran)", "0").replace(*change)
    with pytest.raises(UserCodeError, match=message):
        bench.run(cell, bench.context(until=8), checkpoint=str(tmp_path), checkpoint_every=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "is another program's; give a folder of its own"),
        (json.dumps({"format": checkpoints.FORMAT, "version": 99}), "a checkpoint of version 99"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused(bench: Any, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(PlanError, match=message):
        Driver().check(bench.plan(CELL, checkpoint=str(tmp_path), checkpoint_every=4))


def test_options_that_do_not_go_together_are_refused(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="--checkpoint-every needs a folder"):
        Driver().check(bench.plan(CELL, checkpoint_every=4))
    with pytest.raises(PlanError, match="there is none yet, and none is written"):
        Driver().check(bench.plan(CELL, checkpoint=str(tmp_path / "new")))
    Driver().check(bench.plan(CELL, checkpoint=str(tmp_path / "new"), checkpoint_every=4))
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(PlanError, match="cannot be written to: "):
        Driver().check(bench.plan(CELL, checkpoint=str(tmp_path / "file"), checkpoint_every=4))


@pytest.mark.parametrize("full_at", ["part", "manifest"])
def test_a_full_disk_ends_the_run_and_leaves_what_was_whole(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    run(bench, tmp_path, 4, servers=2)
    replace = checkpoints._replace

    def full(path: Path, write: Any) -> None:
        if full_at in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(path, write)

    monkeypatch.setattr(checkpoints, "_replace", full)
    with pytest.raises(RunError, match=r"checkpoint of clock 8 cannot be written to .*: No space left on device"):
        run(bench, tmp_path, 10**6, servers=2)
    monkeypatch.undo()
    assert (checkpoints.find(str(tmp_path)) or {})["clock"] == 4
    assert run(bench, tmp_path, 6, servers=2).returned == ([4, 5],) * 3
    assert not list(tmp_path.rglob(".*"))


def test_a_file_that_is_gone_is_named(bench: Any, tmp_path: Path) -> None:
    run(bench, tmp_path, 4, servers=2)
    (tmp_path / "clock-00000004" / "1.part-0.parquet").unlink()
    with pytest.raises((RunError, UserCodeError), match=r"is damaged: .*1\.part-0\.parquet"):
        run(bench, tmp_path, 6, servers=2)


LATER = """
    def train(ps):
        a = ps.table("a", shape=4, optimizer=pai.Adagrad(lr=0.5), init=1.0)
        for clock in ps.clocks(until):
            a.push(a.pull())
            if clock == first:
                b = ps.table("b", sparse=True, optimizer=pai.Adagrad(lr=0.5), init=1.0)
            if clock >= first:
                b.push([1, 2], b.pull([1, 2]))
"""


def test_a_table_that_was_declared_after_it_begins_fresh(bench: Any, tmp_path: Path) -> None:
    whole = bench.run(LATER, bench.context(until=6, first=3))
    options = {"checkpoint": str(tmp_path), "checkpoint_every": 2}
    bench.run(LATER, bench.context(until=3, first=3), **options)
    assert [table["spec"]["name"] for table in checkpoints.find(str(tmp_path))["tables"]] == ["a"]
    resumed = bench.run(LATER, bench.context(until=6, first=3), **options)
    assert np.array_equal(resumed.tables["a"], whole.tables["a"])
    assert np.array_equal(resumed.tables["b"][1], whole.tables["b"][1])


@pytest.mark.parametrize("servers", [1, 3])
def test_a_table_that_is_not_declared_again_yet_is_kept(bench: Any, tmp_path: Path, servers: int) -> None:
    options = {"checkpoint": str(tmp_path), "checkpoint_every": 1}
    bench.run(LATER, bench.context(until=2, first=1), **options)
    for until in (3, 4):  # in the first of these runs it is not declared at all
        bench.run(LATER, bench.context(until=until, first=10), servers=servers, **options)
        manifest = checkpoints.find(str(tmp_path))
        clocks = {table["spec"]["name"]: table["clock"] for table in manifest["tables"]}
        assert (manifest["clock"], clocks) == (until, {"a": until, "b": 2})
    resumed = bench.run(LATER, bench.context(until=6, first=5), servers=servers, **options)
    straight = bench.run(LATER, bench.context(until=2, first=0))
    assert np.array_equal(resumed.tables["b"][1], straight.tables["b"][1])  # two of its clocks in all
    assert [path.name for path in tmp_path.glob("clock-*")] == ["clock-00000006"]


def test_only_tables_that_all_partitions_have_are_published(tmp_path: Path) -> None:
    a, b = ({"number": number, "spec": {"name": name}} for number, name in enumerate("ab"))
    checkpoints.publish(str(tmp_path), 4, [[a], [a]])
    checkpoints.publish(str(tmp_path), 8, [[a, b], [a]])
    assert [table["spec"]["name"] for table in checkpoints.find(str(tmp_path))["tables"]] == ["a"]


def test_a_slow_disk_does_not_hold_up_the_clocks(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish, begun, far, waited = checkpoints.publish, threading.Event(), threading.Event(), []

    def slow(*told: Any) -> None:
        begun.set()
        waited.append(far.wait(5))
        publish(*told)

    monkeypatch.setattr(checkpoints, "publish", slow)
    cell = """
        def train(ps):
            w = ps.table("w", shape=3, optimizer=pai.SGD(lr=0.1))
            for clock in ps.clocks():
                w.push(w.pull())
                if clock == 4:
                    begun.wait(5)
                if clock == 7:
                    far.set()
    """
    bench.run(
        cell, bench.context(begun=begun, far=far), checkpoint=str(tmp_path), checkpoint_every=4, until="epoch >= 8"
    )
    assert set(waited) == {True}
    assert (checkpoints.find(str(tmp_path)) or {})["clock"] == 8
    assert [path.name for path in tmp_path.glob("clock-*")] == ["clock-00000008"]


def test_a_run_that_goes_on_counts_what_it_skips_itself(bench: Any, tmp_path: Path) -> None:
    cell = """
        def train(ps):
            w = ps.table("w", shape=3, optimizer=pai.SGD(lr=0.1))
            for clock in ps.clocks(until):
                w.push(w.pull() + (float("nan") if clock < 4 else 0))
    """
    skipped = []
    for until in (4, 8):
        options = {"checkpoint": str(tmp_path), "checkpoint_every": 4, "nan": "skip"}
        result = bench.run(cell, bench.context(until=until), workers=1, servers=2, **options)
        skipped.append(sum(shard["skipped"] for shard in result.shards))
    assert skipped == [12, 0]


def test_two_runs_do_not_write_to_one_folder_at_once(bench: Any, tmp_path: Path) -> None:
    run(bench, tmp_path / "c", 4, servers=1)
    for other in (4, 0):
        with checkpoints.claim(Saving(str(tmp_path / "c"), other)), pytest.raises(PlanError, match="another run uses"):
            run(bench, tmp_path / "c", 5, servers=1)
    with checkpoints.claim(Saving(str(tmp_path / "c"))):  # two that only read may
        assert run(bench, tmp_path / "c", 5, servers=1, checkpoint_every=0).returned == ([4],) * 3
    assert run(bench, tmp_path / "c", 6, servers=1).returned == ([4, 5],) * 3


def test_patience_goes_on_where_it_was(bench: Any, tmp_path: Path) -> None:
    cell = """
        def train(ps):
            w = ps.table("w", shape=2, optimizer=pai.SGD(lr=1.0))
            for clock in ps.clocks():
                w.push([1.0, 1.0])
                pai.log(step=clock, loss=1.0 if clock == 2 else 2.0)   # best when clock 3 begins
    """
    saved: dict[str, Any] = {"checkpoint": str(tmp_path / "saved"), "checkpoint_every": 4, "workers": 2}
    first = bench.run(cell, until="since_best(loss) >= 9 or epoch >= 8", **saved)
    assert first.clock == 8
    assert json.loads((tmp_path / "saved" / "manifest.json").read_text())["best"] == {"since_best(loss)": [1.0, 3]}
    second = bench.run(cell, until="since_best(loss) >= 9", **saved)
    assert second.clock == 12
    assert "since_best(loss) = 9" in second.reason


def test_the_best_of_a_checkpoint_is_that_of_its_clock() -> None:
    ledger = Ledger(None, {"loss": (3.0, 2)})
    ledger.note("best", of="loss", value=2.0, clock=4)
    ledger.note("best", of="error", value=0.5, clock=6)
    assert ledger.best(3) == {"loss": (3.0, 2)}
    assert ledger.best(4) == {"loss": (2.0, 4)}
    assert ledger.best() == {"loss": (2.0, 4), "error": (0.5, 6)}
    assert ledger.best(1) == {}
