"""The line magics, on the inline cluster."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest

from paibook.clusters.contract import Event
from paibook.clusters.inline import InlineCluster
from paibook.errors import ClusterError, PaibookError, PlanError
from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.run import Run
from paibook.runtimes.contract import Progress
from paibook.session import Session
from paibook_magics.console import Console
from paibook_magics.lines import CLUSTER_HELP, RUNS_HELP, Lines
from paibook_magics.picture import Shown

WAIT = 30
STAGE = {"name": "map", "tasks": 1, "records_in": 2, "records_out": 2, "bytes_in": 0, "bytes_out": 0, "seconds": 1.5}
SUMMARY = {"stages": [STAGE], "seconds": 1.5, "counters": {"words": 7}}


@pytest.fixture
def session(runs_folder: Path) -> Iterator[Session]:
    opened = Session("inline")
    yield opened
    opened.close()


@pytest.fixture
def lines(session: Session) -> Lines:
    return Lines(session, {"held": InlineCluster(), "nothing": None, "number": 5})


def run(session: Session, source: str, **fields: Any) -> Run:
    started = session.run(Plan("allreduce", Program(source), Resources(2), "inline", **fields))
    started.exception(WAIT)
    return started


class TestCluster:
    @pytest.mark.parametrize(
        "line", ["up", "start now", "attach", "attach a b", "scale", "scale 1 2", "stop it", "status -v", "-h", "'open"]
    )
    def test_a_line_that_is_not_understood_shows_the_help(self, lines: Lines, line: str) -> None:
        with pytest.raises(PlanError) as caught:
            lines.cluster(line)
        assert str(caught.value).startswith(f"%pai_cluster {line}: not understood")
        assert str(caught.value).endswith(CLUSTER_HELP)

    @pytest.mark.parametrize("line", ["", "status", "start"])
    def test_status_says_where_and_how_much_room(
        self, lines: Lines, line: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert lines.cluster(line) is None
        assert "inline at this process: 1 workers, room for 64 ranks, 64 free" in capsys.readouterr().out

    def test_status_lists_the_ranks(self, lines: Lines, session: Session) -> None:
        run(session, "1")
        frame = lines.cluster("status")
        assert isinstance(frame, pd.DataFrame)
        assert frame[["role", "rank", "state"]].values.tolist() == [["worker", 0, "idle"], ["worker", 1, "idle"]]

    def test_scale_takes_a_number(self, lines: Lines, session: Session) -> None:
        lines.cluster("scale 5")
        assert session.cluster.tasks().slots == 5
        for word in ("0", "x", "2.5", "-1", "²"):
            with pytest.raises(PlanError, match=f"takes a number of workers, 1 or more; got '{word}'"):
                lines.cluster(f"scale {word}")

    def test_restart_forgets_variables(self, lines: Lines, session: Session) -> None:
        run(session, "kept = 1")
        lines.cluster("restart")
        assert isinstance(run(session, "kept").exception(WAIT), NameError)

    def test_stop_ends_it_and_the_next_run_starts_it(
        self, lines: Lines, session: Session, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(session, "1")
        assert lines.cluster("stop") is None
        assert "the next cell that needs the cluster starts it again" in capsys.readouterr().out
        assert dict(run(session, "rank").result(WAIT).values) == {0: 0, 1: 1}

    def test_attach_takes_a_reference_or_a_variable(self, lines: Lines, session: Session) -> None:
        before = session.cluster
        lines.cluster("attach inline")
        lines.cluster("attach held")
        assert session.cluster is before  # both are called inline

    @pytest.mark.parametrize("name", ["nothing", "number", "unknown", "/no/such.json"])
    def test_attaching_what_is_no_cluster_keeps_the_one_in_use(self, lines: Lines, session: Session, name: str) -> None:
        before = session.cluster
        with pytest.raises(ClusterError):
            lines.cluster(f"attach {name}")
        assert session.cluster is before


class TestRuns:
    @pytest.mark.parametrize(
        "line",
        [
            "list",
            "-n",
            "-n x",
            "-n -1",
            "show",
            "delete",
            "resume",
            "stop",
            "result",
            "result a -o 1x",
            "show a b",
            "'open",
            "-n ²",
        ],
    )
    def test_a_line_that_is_not_understood_shows_the_help(self, lines: Lines, line: str) -> None:
        with pytest.raises(PlanError) as caught:
            lines.runs(line)
        assert str(caught.value).startswith(f"%pai_runs {line}: not understood")
        assert str(caught.value).endswith(RUNS_HELP)

    def test_an_empty_history_is_an_empty_table(self, lines: Lines) -> None:
        assert len(lines.runs("")) == 0
        assert list(lines.runs("").columns) == ["name", "model", "state", "started", "seconds", "error"]

    def test_the_latest_runs_are_listed(self, lines: Lines, session: Session) -> None:
        good, bad = run(session, "1", name="good"), run(session, "raise ValueError('why')", name="bad")
        table = lines.runs("")
        assert set(table.index) == {good.id, bad.id}
        assert table.loc[good.id, ["name", "model", "state", "error"]].tolist() == ["good", "allreduce", "done", ""]
        assert table.loc[bad.id, ["state", "error"]].tolist() == ["failed", "why"]
        assert len(lines.runs("-n 1")) == 1

    def test_show_has_plan_output_and_metrics(
        self, lines: Lines, session: Session, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown = run(session, "print('said', rank)\npai.log(step=1, loss=0.5)\npai.log(step=2, loss=0.25)")
        figure = lines.runs(f"show {shown.id[-4:]}")
        out = capsys.readouterr().out
        assert out.startswith(f"{shown.id}: done\n")
        assert "[worker 0] said 0\n[worker 1] said 1\n" in out
        assert shown.plan.digest() in out
        assert isinstance(figure, Shown)
        assert "loss" in figure._repr_mimebundle_()["text/plain"]

    def test_show_without_metrics_draws_nothing(
        self, lines: Lines, session: Session, capsys: pytest.CaptureFixture[str]
    ) -> None:
        failed = run(session, "1 / 0")
        assert lines.runs(f"show {failed.id}") is None
        assert f"{failed.id}: failed: division by zero" in capsys.readouterr().out

    def test_delete_forgets_one(self, lines: Lines, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
        first, second = run(session, "1"), run(session, "2")
        assert lines.runs(f"delete {first.id}") is None
        assert capsys.readouterr().out == f"deleted {first.id}\n"
        assert list(lines.runs("").index) == [second.id]

    def test_a_run_that_goes_on_is_not_deleted(self, lines: Lines, session: Session) -> None:
        inside = threading.Event()
        plan = Plan("allreduce", Program("print('in', flush=True)\nwhile True: pass"), Resources(1), "inline")
        going = session.run(plan, on_event=lambda event: inside.set())
        assert inside.wait(WAIT)
        with pytest.raises(PaibookError, match=f"run {going.id} is still running; stop it first"):
            lines.runs(f"delete {going.id}")
        assert lines.runs("").loc[going.id, "state"] == "running"
        going.cancel()
        going.exception(WAIT)
        lines.runs(f"delete {going.id}")
        assert len(lines.runs("")) == 0

    def test_show_has_the_summary(
        self, lines: Lines, session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown, bare = run(session, "1"), run(session, "2")
        told = {shown.id: SUMMARY}
        monkeypatch.setattr(RunHistory, "summary", lambda history, run_id: told.get(run_id))
        lines.runs(f"show {bare.id}")
        assert "records" not in capsys.readouterr().out
        lines.runs(f"show {shown.id}")
        out = capsys.readouterr().out
        assert "map 1 task · 2 records · 1.5 s · 1.3 records/s\ncounters: words 7\n" in out
        assert "\nstages:\nstage  tasks" in out

    def test_stop_ends_a_run_and_says_how_it_stands(
        self, lines: Lines, session: Session, capsys: pytest.CaptureFixture[str]
    ) -> None:
        inside = threading.Event()
        plan = Plan("allreduce", Program("print('in', flush=True)\nwhile True: pass"), Resources(2), "inline")
        going = session.run(plan, on_event=lambda event: inside.set())
        assert inside.wait(WAIT)
        assert lines.runs(f"stop {going.id}") is None
        assert capsys.readouterr().out == f"{going.id}: cancelled\n"
        with pytest.raises(PlanError, match=f"run {going.id} has ended already: cancelled"):
            lines.runs(f"stop {going.id}")
        with pytest.raises(PaibookError, match=f"run {going.id} was not begun with --detach"):
            lines.runs(f"result {going.id}")

    @pytest.mark.parametrize("action", ["show", "delete", "resume", "stop", "result"])
    def test_an_id_that_is_none_is_named(self, lines: Lines, action: str) -> None:
        with pytest.raises(PlanError, match="no run is called 'zz'; the latest are: none"):
            lines.runs(f"{action} zz")


class Counting:
    """A driver that gives the words of the plan's hyperparameters, or fails as they say."""

    def check_resume(self, plan: Plan, directory: Path) -> None:
        pass

    def check(self, plan: Plan) -> None:
        assert plan.runtime == "mapreduce"

    def run(self, plan: Plan, cluster: Any, context: Any) -> Any:
        context.progress(Progress("map", 1, 1))
        context.emit(Event("stdout", "map", 0, "counted\n"))
        if plan.hyperparameters["words"] == "fail":
            raise ValueError("no words")
        return plan.hyperparameters["words"].split()


class Resumable(Session):
    """A session whose runs begin anew when they are resumed."""

    resumed: ClassVar[list[str]] = []

    def resume(self, run_id: str, on_event: Any = None, on_progress: Any = None) -> Run:
        self.resumed.append(run_id)
        return self.run(self.history.plan(run_id), None, on_event, on_progress)


class TestResume:
    @pytest.fixture
    def session(self, runs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
        monkeypatch.setattr("paibook.session.driver_of", lambda runtime: Counting())
        monkeypatch.setattr(Resumable, "resumed", [])
        opened = Resumable("inline")
        yield opened
        opened.close()

    def ended(self, session: Session, words: str, out: str | None) -> str:
        options = {"out": out, "out_kind": "variable" if out else "none", "outputs": {}}
        plan = Plan("mapreduce", Program(""), Resources(), "inline", options=options, hyperparameters={"words": words})
        run = session.run(plan)
        run.exception(WAIT)
        return run.id

    def test_the_result_is_kept_where_the_plan_says(self, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
        namespace: dict[str, Any] = {}
        run_id = self.ended(session, "to be", "words")
        assert Lines(session, namespace).runs(f"resume {run_id[-6:]}") is None
        assert namespace == {"words": ["to", "be"]}
        assert session.resumed == [run_id]  # type: ignore[attr-defined]
        out = capsys.readouterr().out
        assert out.startswith("[map 0] counted\n")
        assert "words: 2 records" in out

    def test_what_is_not_kept_is_shown(self, session: Session) -> None:
        assert Lines(session, {}).runs(f"resume {self.ended(session, 'to be', None)}") == ["to", "be"]

    def test_what_went_wrong_again_is_raised(self, session: Session) -> None:
        with pytest.raises(ValueError, match="no words"):
            Lines(session, {}).runs(f"resume {self.ended(session, 'fail', None)}")


class TestAttach:
    def test_a_run_that_has_ended_is_shown_whole(
        self, lines: Lines, session: Session, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ran = run(session, "for step in range(9): pai.log(step=step, loss=1.0 * step)\nprint('said', rank)")
        capsys.readouterr()
        assert lines.runs(f"attach {ran.id[-4:]}") is None
        shown = capsys.readouterr().out
        assert "[rank 1] said 1" in shown
        assert "loss" in shown
        assert shown.splitlines()[-1] == f"{ran.id} done"

    def test_a_failed_run_says_why(self, lines: Lines, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
        ran = run(session, "1 / 0")
        lines.runs(f"attach {ran.id}")
        assert re.search(rf"{ran.id} failed: .*division by zero", capsys.readouterr().out)

    async def test_on_the_event_loop_it_is_the_same(
        self, lines: Lines, session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def cancel(_console: Console) -> None:
            raise asyncio.CancelledError

        await lines.attach(run(session, "print('said')").id)
        assert "said" in capsys.readouterr().out
        running = session.run(
            Plan("allreduce", Program("import time\nwhile True: time.sleep(0.01)"), Resources(1), "inline")
        )
        monkeypatch.setattr(Console, "tick", cancel)
        with pytest.raises(KeyboardInterrupt, match=f"run {running.id} goes on"):
            await lines.attach(running.id)
        assert not running.done()
        running.cancel()
        running.exception(WAIT)

    def test_stop_ends_the_showing_and_not_the_run(
        self, lines: Lines, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(_console: Console) -> None:
            raise KeyboardInterrupt

        running = session.run(
            Plan("allreduce", Program("import time\nwhile True: time.sleep(0.01)"), Resources(1), "inline")
        )
        monkeypatch.setattr(Console, "tick", interrupt)
        with pytest.raises(KeyboardInterrupt, match=f"run {running.id} goes on; `%pai_runs attach {running.id}`"):
            lines.runs(f"attach {running.id}")
        assert not running.done()
        running.cancel()
        running.exception(WAIT)

    def test_a_run_that_is_not_there_is_named(self, lines: Lines) -> None:
        with pytest.raises(PlanError, match="no run is called 'none'"):
            lines.runs("attach none")
