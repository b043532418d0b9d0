"""``%pai_explain`` and ``run.explain()``, the drawing of MapReduce, and plans drawn before they run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paibook.errors import PaibookError, PlanError
from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.run import Run
from paibook.runtimes.contract import Progress
from paibook.runtimes.mapreduce.picture import JobPicture
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.shuffle import Segment
from paibook.session import Session
from paibook_magics import explaining as module
from paibook_magics.explaining import Explaining
from paibook_magics.mapreduce_scene import mapreduce_bundle, mapreduce_drawing
from paibook_magics.panels import Panels
from paibook_magics.picture import plan_bundle
from paibook_magics.pictures import drawn
from paibook_magics.planned_drawing import planned_drawing
from paibook_magics.progress import ProgressDisplay
from tests.magics.conftest import Notebook
from tests.magics.test_ps_picture import Balanced

WAIT = 60
COUNT = "\ndef map(line):\n    yield line, 1\n\ndef reduce(key, values):\n    yield key, sum(values)\n"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    opened = Session("inline", RunHistory(tmp_path / "runs"))
    yield opened
    opened.close()


@pytest.fixture
def explaining() -> Explaining:
    return Explaining(Panels())


def run(session: Session, source: str = COUNT, **options: Any) -> Run:
    merged = {"inputs": [{"variable": "lines"}], "out_kind": "none", **options}
    plan = Plan("mapreduce", Program(source, "Cell In[3]"), Resources(), "inline", options=merged)
    started = session.run(plan, {"lines": ["a", "b", "a"]})
    started.result(WAIT)
    return started


def shuffled(tasks: int, partitions: int, done: int) -> JobPicture:
    made = JobPicture(["map", "reduce"], {}, partitions, [(f'<b>"{i}".txt', "bytes") for i in range(tasks)])
    made.begin("map", tasks)
    for number in range(done):
        made.submit(number)
        made.take_up(number)
        report = Report(records_in=10, records_out=20, spills=1, spilled_bytes=3000)
        made.end(number, report, [[Segment("x", 0, 50, number + 1, 10)] for _ in range(partitions)])
    return made


class TestInATerminal:
    """There is no widget; the last picture comes as text."""

    def test_the_last_run_with_pictures_is_shown(
        self, session: Session, explaining: Explaining, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(session)
        explaining.line(session, "")
        shown = capsys.readouterr().out
        assert shown.startswith("In[3] · %%pai_mapreduce · done\nmap: ")
        assert "reduce: 3/3 tasks, 3 records in, 2 out" in shown

    def test_a_run_of_an_earlier_notebook_is_found_in_its_folder(
        self, session: Session, explaining: Explaining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = run(session)
        later = Session("inline", RunHistory(tmp_path / "runs"))
        try:
            for words in ("", made.id, made.id[-4:]):
                explaining.line(later, words)
                assert "shuffle: " in capsys.readouterr().out
        finally:
            later.close()

    def test_a_run_explains_itself(
        self,
        session: Session,
        explaining: Explaining,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        made = run(session)
        monkeypatch.setattr(Run, "explainer", None)
        with pytest.raises(PaibookError, match="%load_ext paibook"):
            made.explain()
        monkeypatch.setattr(Run, "explainer", staticmethod(explaining.show))
        made.explain()
        assert "%%pai_mapreduce · done" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "said"), [("", "no run has pictures yet"), ("zzzz", "zzzz"), ("a b", "not understood")]
    )
    def test_what_cannot_be_shown_is_named(
        self, session: Session, explaining: Explaining, words: str, said: str
    ) -> None:
        with pytest.raises(PlanError, match=said):
            explaining.line(session, words)

    def test_a_run_without_pictures_says_which_have_some(self, session: Session, explaining: Explaining) -> None:
        made = session.run(Plan("allreduce", Program("1 + 1"), Resources(1), "inline"))
        made.result(WAIT)
        with pytest.raises(PlanError, match="has no pictures: cells with %%pai_mapreduce"):
            explaining.line(session, made.id)


class TestInANotebook:
    def test_the_player_has_the_cells_code_and_every_picture(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown: list[Any] = []

        class Shown:
            def show(self, panel: Any) -> None:
                shown.append(panel)

        monkeypatch.setattr(module, "in_notebook", lambda: True)
        made = run(session)
        Explaining(Shown()).show(made)  # type: ignore[arg-type]
        (player,) = shown
        assert player.source.startswith("%%pai_mapreduce\ndef map(line):\n")
        assert player.state == "done"
        assert len(player.frames) == len(made.pictures)
        assert "reduce: 3/3 tasks" in player.static()["text/plain"]

    @pytest.mark.slow
    def test_a_cell_with_explain_shows_a_player_and_keeps_its_last_picture(self, notebook: Notebook) -> None:
        notebook.run("lines = ['a b', 'b c'] * 5")
        outcome = notebook.run(f"%%pai_mapreduce -i lines --cluster inline --explain{COUNT}")
        assert outcome.status == "ok"
        assert any("application/vnd.jupyter.widget-view+json" in shown for shown in outcome.displays)
        kept = [shown["text/html"] for shown in outcome.displays if "pai-static" in shown.get("text/html", "")]
        assert len(kept) >= 1
        again = notebook.run("%pai_explain")
        assert "</svg>" in again.displays[0]["text/html"]
        assert "reduce: " in again.displays[0]["text/plain"]

    @pytest.mark.slow
    def test_a_dry_run_is_drawn(self, notebook: Notebook) -> None:
        outcome = notebook.run(
            f"lines = ['a']\n\n%%pai_mapreduce -i lines --reducers 3 --dry-run{COUNT}".partition("\n\n")[2]
        )
        assert "begin" not in outcome.displays[0]["text/html"]
        assert "partition 2" in outcome.displays[0]["text/html"]


class TestDrawing:
    @pytest.mark.parametrize(("tasks", "partitions", "done"), [(1, 1, 0), (3, 4, 2), (40, 64, 40), (500, 16, 100)])
    def test_every_group_and_cell_is_drawn_and_every_element_closed(
        self, tasks: int, partitions: int, done: int
    ) -> None:
        picture = shuffled(tasks, partitions, done).draw({"words": 7})
        html = mapreduce_bundle(picture, "a last line")["text/html"]
        parser = Balanced()
        parser.feed(html)
        assert parser.open == []
        rows, columns = len(picture["stages"][0]["groups"]), len(picture["stages"][0]["shuffle"]["columns"])
        assert html.count("to partition") >= rows * columns
        assert "words 7" in html
        assert html.endswith('<div class="pai-note">a last line</div></div>')
        assert "<b>" not in html
        assert len(html) < 150_000

    def test_what_was_done_again_spilled_and_backed_up_is_seen(self) -> None:
        made = shuffled(3, 2, 1)
        made.submit(1)
        made.take_up(1)
        made.submit(1, is_backup=True)
        made.lose(2, is_at_work_elsewhere=False)
        bundle = mapreduce_bundle(made.draw())
        assert "spilled 3.0 kB" in bundle["text/html"]
        assert ">+1<" in bundle["text/html"]
        assert ">↻1<" in bundle["text/html"]
        assert bundle["text/plain"].splitlines()[0] == (
            "map: 1/3 tasks, 1 at work, 10 records in, 20 out, 1 backup, 1 retried, 1 spill, 3.0 kB"
        )
        assert bundle["text/plain"].splitlines()[1] == (
            "  shuffle: 2 values, 100 B in 2 partitions; the most, 50 %, in partition 0"
        )

    def test_reduce_tasks_stand_under_what_they_take(self) -> None:
        made = shuffled(2, 8, 2)
        waits = mapreduce_drawing(made.draw())
        assert "begin when all of these are done" in waits
        made.take_buckets([range(6), range(6, 8)])
        made.begin("reduce", 2)
        html = mapreduce_drawing(made.draw())
        assert "reduce 0, takes partition 0 to 5, waiting" in html
        assert "begin when" not in html

    def test_of_many_stages_the_latest_are_drawn(self) -> None:
        names = ["map", *(f"reduce{k}" for k in range(2, 12))]
        made = JobPicture(names, {}, 2)
        for name in names:
            made.begin(name, 1)
            made.end(0, Report(), [[], []])
        html = mapreduce_drawing(made.draw())
        assert "reduce10 tasks" in html
        assert ">map tasks<" not in html

    def test_a_model_that_nobody_draws_is_named(self) -> None:
        assert "'quantum'" in drawn({"model": "quantum"})["text/plain"]

    def test_the_live_panel_has_its_bars_and_the_drawing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shown: list[dict[str, str]] = []
        monkeypatch.setattr("paibook_magics.progress.display", lambda bundle, **_options: shown.append(bundle))
        progress = ProgressDisplay(0.0)
        progress.update(Progress("map", 1, 3, picture=shuffled(3, 2, 1).draw()))
        progress.tick()
        assert 'role="progressbar"' in shown[0]["text/html"]
        assert "map 0 to partition 1: 1 value, 50 B" in shown[0]["text/html"]
        assert "░" in shown[0]["text/plain"]


class TestPlans:
    def test_a_mapreduce_plan_shows_splits_mappers_and_partitions(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("a line\n" * 30_000)
        options = {"inputs": [str(tmp_path / "notes.txt")], "reducers": 2}
        html = plan_bundle(Plan("mapreduce", Program(COUNT), Resources(2), options=options), {})["text/html"]
        assert "map 0, notes.txt, bytes 0 to " in html
        assert "reduce 1, takes partition 1, waiting" in html
        assert "<th>model</th><td>mapreduce</td>" in html
        assert "done again" not in html

    def test_a_ps_plan_shows_workers_servers_and_copies(self) -> None:
        program = Program("def train(ps): pass")
        html = plan_bundle(Plan("ps", program, Resources(2, 3), options={"replicas": 2}), {})["text/html"]
        assert "worker 1" in html
        assert "partitions 1, copies of 0, 2" in html
        assert html.count("stroke-dasharray") == 6
        assert "pulls/s" not in html

    def test_how_many_workers_there_will_be_may_be_open(self) -> None:
        html = plan_bundle(Plan("ps", Program("def train(ps): pass"), Resources(0, 1), options={}), {})["text/html"]
        assert "as many workers as the cluster has" in html

    def test_a_query_has_its_own_picture(self) -> None:
        plan = Plan("mapreduce", Program("\nSELECT 1"), options={"inputs": ["a.csv"], "sql": True})
        assert planned_drawing(plan) == ""
