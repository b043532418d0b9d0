"""Runs on the inline cluster, with the real drivers: states, records, output, cancelling, time-outs."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paibook.clusters.contract import Event
from paibook.errors import PaibookError, RankLost, RunCancelled, RunError
from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.run import STATES, Run
from paibook.runtimes.contract import Progress
from paibook.session import Session

WAIT = 30
WORD_COUNT = """
def map(line):
    for word in line.split():
        yield word, 1

def reduce(word, ones):
    yield word, sum(ones)
"""
TRAIN = """
def train(ps):
    w = ps.table("w", shape=(2,), optimizer=pai.SGD(lr=0.5))
    for epoch in ps.clocks():
        w.push(w.pull() - 1)
        pai.log(step=epoch, loss=1 / (epoch + 1))
"""
# Interrupts reach an inline rank between two bytecodes.
ENDLESS = "print('in', flush=True)\nwhile True: pass"


@pytest.fixture
def session(runs_folder: Path) -> Iterator[Session]:
    opened = Session("inline")
    yield opened
    opened.close()


def allreduce(source: str, workers: int = 2, **fields: Any) -> Plan:
    return Plan("allreduce", Program(source, "Cell In[1]"), Resources(workers), "inline", **fields)


def mapreduce(**fields: Any) -> Plan:
    options = {"inputs": [{"variable": "docs"}], "out_kind": "none"}
    return Plan("mapreduce", Program(WORD_COUNT), cluster="inline", options=options, **fields)


def on_disk(run: Run) -> dict[str, Any]:
    return dict(json.loads((run.directory / "run.json").read_text()))


def started(session: Session, plan: Plan) -> Run:
    """A run whose ranks have all said something."""
    inside = threading.Semaphore(0)
    run = session.run(plan, on_event=lambda event: inside.release() if event.kind == "stdout" else None)
    for _ in range(plan.resources.workers):
        assert inside.acquire(timeout=WAIT)
    return run


class TestResults:
    def test_allreduce_gives_every_ranks_value(self, session: Session) -> None:
        run = session.run(allreduce("comm.allreduce(rank + 1)"))
        assert dict(run.result(WAIT).values) == {0: 3, 1: 3}

    def test_mapreduce_gives_records(self, session: Session) -> None:
        run = session.run(mapreduce(), {"docs": ["to be or", "not to be"]})
        assert sorted(run.result(WAIT)) == [("be", 2), ("not", 1), ("or", 1), ("to", 2)]

    def test_ps_gives_tables_and_metrics(self, session: Session) -> None:
        options = {"consistency": "bsp", "staleness": 1, "until": "epoch >= 3"}
        plan = Plan("ps", Program(TRAIN), Resources(2, 1), "inline", options=options)
        run = session.run(plan)
        assert run.result(WAIT).clock == 3
        assert run.metrics.names == ("loss",)
        assert {m.rank for m in run.metrics} == {0, 1}

    def test_an_error_is_the_users_own(self, session: Session) -> None:
        run = session.run(allreduce("class Mine(Exception): pass\nif rank == 1: raise Mine('boom')\ncomm.barrier()"))
        error = run.exception(WAIT)
        assert type(error).__name__ == "Mine"
        assert run.state == "failed"
        assert on_disk(run)["error"] == "boom"
        with pytest.raises(type(error), match="boom"):  # type: ignore[arg-type]
            run.result(WAIT)

    def test_an_error_without_text_leaves_its_name_in_the_record(self, session: Session) -> None:
        run = session.run(allreduce("raise KeyError"))
        assert isinstance(run.exception(WAIT), KeyError)
        assert on_disk(run)["error"] == "KeyError"

    def test_the_first_line_of_a_long_error_is_kept(self, session: Session) -> None:
        run = session.run(allreduce("raise ValueError('one\\ntwo')"))
        run.exception(WAIT)
        assert on_disk(run)["error"] == "one"

    def test_an_error_whose_text_fails_ends_the_run_too(self, session: Session) -> None:
        source = "class Odd(Exception):\n    def __str__(self): raise RuntimeError\nraise Odd"
        run = session.run(allreduce(source, 1))
        assert type(run.exception(WAIT)).__name__ == "Odd"
        assert on_disk(run)["state"] == "failed"

    def test_a_result_that_is_not_there_in_time(self, session: Session) -> None:
        run = started(session, allreduce(ENDLESS))
        with pytest.raises(TimeoutError):
            run.result(0.01)
        assert not run.done()
        run.cancel()
        run.exception(WAIT)

    async def test_can_be_awaited(self, session: Session) -> None:
        assert dict((await session.run(allreduce("rank"))).values) == {0: 0, 1: 1}
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(session.run(allreduce("1 / 0")), WAIT)


class TestOnDisk:
    def test_the_record_from_start_to_end(self, session: Session) -> None:
        run = started(session, allreduce(ENDLESS, name="mine"))
        before = on_disk(run)
        assert (before["state"], before["ended"], before["pid"]) == ("running", None, os.getpid())
        assert (before["id"], before["name"], before["runtime"], before["cluster"]) == (
            run.id,
            "mine",
            "allreduce",
            "inline",
        )
        run.cancel()
        run.exception(WAIT)
        after = on_disk(run)
        assert after["state"] in STATES
        assert after["ended"] >= after["started"]

    def test_the_plan_is_kept(self, session: Session, runs_folder: Path) -> None:
        run = session.run(allreduce("1", hyperparameters={"lr": 0.5}))
        run.result(WAIT)
        assert RunHistory(runs_folder).plan(run.id) == run.plan

    def test_what_is_printed_is_kept(self, session: Session) -> None:
        source = "import sys\nprint('out', rank)\nprint('err', rank, file=sys.stderr)\nrank"
        run = session.run(allreduce(source))
        run.result(WAIT)
        lines = [json.loads(line) for line in (run.directory / "output.jsonl").read_text().splitlines()]
        assert {(e["kind"], e["source"], e["rank"], e["text"]) for e in lines} >= {
            ("stdout", "worker", 0, "out 0\n"),
            ("stderr", "worker", 1, "err 1\n"),
            ("result", "worker", 1, "1"),
        }
        assert run.stdout == "[worker 0] out 0\n[worker 1] out 1\n"
        assert run.stderr == "[worker 0] err 0\n[worker 1] err 1\n"

    def test_metrics_are_kept(self, session: Session, runs_folder: Path) -> None:
        run = session.run(allreduce("for i in range(3): pai.log(step=i, loss=i + rank)"))
        run.result(WAIT)
        kept = RunHistory(runs_folder).metrics(run.id)
        assert sorted((m.rank, m.step, m.value) for m in kept) == [
            (r, s, float(s + r)) for r in range(2) for s in range(3)
        ]
        assert kept.run == run.id

    def test_a_folder_that_vanishes_ends_the_run_all_the_same(self, session: Session) -> None:
        run = started(session, allreduce(ENDLESS))
        shutil.rmtree(run.directory)
        run.cancel()
        assert isinstance(run.exception(WAIT), PaibookError | OSError)
        assert run.state != "running"


class TestStopping:
    def test_cancel_ends_it_and_says_so(self, session: Session) -> None:
        run = started(session, allreduce(ENDLESS))
        run.cancel()
        with pytest.raises(RunCancelled):
            run.result(WAIT)
        assert (run.state, on_disk(run)["state"]) == ("cancelled", "cancelled")

    def test_ranks_and_their_variables_outlive_a_cancel(self, session: Session) -> None:
        session.run(allreduce("kept = rank + 40")).result(WAIT)
        run = started(session, allreduce(ENDLESS))
        run.cancel()
        run.exception(WAIT)
        assert dict(session.run(allreduce("kept")).result(WAIT).values) == {0: 40, 1: 41}

    def test_cancel_again_or_too_late_does_nothing(self, session: Session) -> None:
        run = session.run(allreduce("1"))
        run.result(WAIT)
        run.cancel()
        run.cancel()
        assert run.state == "done"

    def test_a_timeout_is_named(self, session: Session) -> None:
        run = session.run(allreduce(ENDLESS, timeout=0.2))
        with pytest.raises(RunError, match=r"0\.2 s"):
            run.result(WAIT)
        assert (run.state, "0.2 s" in on_disk(run)["error"]) == ("failed", True)

    def test_a_timeout_that_is_not_reached_does_nothing(self, session: Session) -> None:
        run = session.run(allreduce("rank", timeout=WAIT))
        assert dict(run.result(WAIT).values) == {0: 0, 1: 1}

    def test_a_mapreduce_is_cancelled_between_tasks(self, session: Session) -> None:
        runs: list[Run] = []
        handed = threading.Event()

        def stop_after_the_first(progress: Progress) -> None:
            if progress.stage == "map" and progress.done:
                assert handed.wait(WAIT)
                runs[0]._context.cancel()

        run = session.run(mapreduce(), {"docs": ["a b"] * 1000}, on_progress=stop_after_the_first)
        runs.append(run)
        handed.set()
        assert isinstance(run.exception(WAIT), RunCancelled)
        assert run.state == "cancelled"

    def test_a_lost_rank_fails_the_run(self, session: Session) -> None:
        run = started(session, allreduce(ENDLESS))
        session.cluster.ranks(2).kill([1])
        assert isinstance(run.exception(WAIT), RankLost)
        assert "rank 1 was lost" in on_disk(run)["error"]


class TestEvents:
    def test_events_and_progress_arrive_before_the_end(self, session: Session) -> None:
        events: list[Event] = []
        stages: list[Progress] = []
        run = session.run(allreduce("print('x')\npai.log(step=1, loss=2)\nrank"), None, events.append, stages.append)
        run.result(WAIT)
        assert {"stdout", "metric", "result"} <= {event.kind for event in events}
        assert stages[0].stage == "start"
        assert (stages[-1].done, stages[-1].total, stages[-1].unit) == (2, 2, "ranks")

    def test_callbacks_hear_of_the_end_even_when_it_is_past(self, session: Session) -> None:
        heard: list[str] = []
        run = session.run(allreduce("1"))
        run.result(WAIT)
        run.add_done_callback(lambda run: heard.append(run.state))
        assert heard == ["done"]

    def test_says_what_it_is(self, session: Session) -> None:
        run = session.run(allreduce("pai.log(step=1, loss=2)"))
        run.result(WAIT)
        assert repr(run).startswith(f"<Run {run.id}: allreduce, done, ")
        assert repr(run).endswith("metrics: loss>")

    def test_drawing_needs_a_notebook(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Run, "plotter", None)
        with pytest.raises(PaibookError, match="%load_ext paibook"):
            session.run(allreduce("1")).plot()


class Big:
    """Something worth forgetting."""


@pytest.mark.parametrize("source", ["1", "1 / 0"])
def test_a_run_that_ended_does_not_hold_on_to_what_was_sent(session: Session, source: str) -> None:
    value = Big()
    gone = weakref.ref(value)
    run = session.run(allreduce(source, push=("value",)), {"value": value})
    run.exception(WAIT)
    del value
    collected(lambda: gone() is None)
    assert run in session.runs


def collected(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        gc.collect()
        if condition():
            return
        threading.Event().wait(0.02)  # the run's thread is still on its way out
    raise AssertionError("still referred to")


def test_a_run_whose_folder_is_taken_away_ends_well_and_says_so(runs_folder: Path) -> None:
    session = Session("inline")
    program = Program("import shutil, pathlib\nshutil.rmtree(folder)\nprint('kept going')\npai.log(step=1, loss=0.5)\n")
    plan = Plan("allreduce", program, Resources(workers=1), "inline", push=("folder",))
    run = session.run(plan, {"folder": str(runs_folder)})
    run.result(30)
    assert "output is no longer saved" in run.unsaved
    assert "metrics are no longer saved" in run.unsaved
    assert run.metrics.last("loss") == 0.5


def test_output_is_saved_up_to_a_limit_and_says_so(
    session: Session, runs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paibook.run.SAVED_BYTES", 10_000)
    run = session.run(allreduce("for i in range(1000): print('line', i, flush=True)", workers=1))
    run.result(WAIT)
    assert (run.directory / "output.jsonl").stat().st_size < 11_000
    assert run.unsaved == "output beyond 0.01 MB is not saved"
    first, *_lines, last = run.stdout.splitlines()
    assert first == "[worker 0] line 0"
    assert last == "[output beyond 0.01 MB is not saved]"
