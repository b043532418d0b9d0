"""Searches over real cells: trials, pruning, stopping, failing, going on; in this process and on a cluster."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import paibook as pai
from paibook.errors import PaibookError, PlanError, RunCancelled, RunError
from paibook.hyperparameters import HyperParameters, between
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

WAIT = 60
BOWL = "pai.log(step=0, loss=(hp.lr - 0.3) ** 2, other=1)"
MODEL = HyperParameters.of({"lr": between(0.0, 1.0, default=0.5), "name": "x"}, "Model")


@pytest.fixture
def session(runs_folder: Path) -> Iterator[Session]:
    opened = Session("inline")
    yield opened
    opened.close()


@pytest.fixture
def search(session: Session, tmp_path: Path) -> Callable[..., Any]:
    """Start a search over a cell on one inline rank."""

    def begin(source: str = BOWL, space: Any = MODEL, **options: Any) -> Any:
        plan = Plan("allreduce", Program(source), Resources(1), "inline", **options.pop("plan", {}))
        chosen = {"trials": 5, "seed": 1, "jobs": 1, "study": "s", "folder": tmp_path / "studies", **options}
        return pai.search(plan, space, session=session, **chosen)

    return begin


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_finds_the_best_of_its_trials_and_keeps_each_as_a_run(search: Any, session: Session) -> None:
    done = search(trials=12)
    best = done.result(WAIT)
    trials = done.trials
    assert [trial.number for trial in trials] == list(range(12))
    assert best.value == min(trial.value for trial in trials if trial.state == "done")
    assert best.value == pytest.approx((best.params["lr"] - 0.3) ** 2)
    assert abs(best.params["lr"] - 0.3) < 0.2
    assert done.best_hyperparameters == {"lr": best.params["lr"], "name": "x"}
    plan = session.history.plan(best.run)
    assert (plan.hyperparameters["lr"], plan.name) == (best.params["lr"], f"s · {best.number}")
    assert set(done.importance()) == {"lr"}
    assert done.snapshot()["best"] == best.number


def test_the_same_seed_tries_the_same(search: Any) -> None:
    first, second = (search(study=name, trials=3) for name in ("a", "b"))
    for one in (first, second):
        one.result(WAIT)
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]


def test_more_may_be_better_and_the_best_step_may_count(search: Any) -> None:
    cell = "for step, part in enumerate([0.5, 1, 0.2]): pai.log(step=step, accuracy=hp.lr * part)"
    done = search(cell, metric="accuracy", direction="maximize", which="best", pruner="none")
    assert done.result(WAIT).value == max(trial.params["lr"] for trial in done.trials)


def test_trials_that_do_badly_are_pruned(search: Any) -> None:
    cell = "import time\nfor step in range(20):\n    pai.log(step=step, loss=hp.lr)\n    time.sleep(0.02)"
    done = search(cell, trials=10, sampler="random")
    best = done.result(WAIT)
    trials = done.trials
    assert {trial.state for trial in trials[:5]} == {"done"}  # before any is judged
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert pruned
    assert all(len(trial.curve) < 20 and trial.value > best.value for trial in pruned)


def test_hyperband_and_random_search(search: Any) -> None:
    cell = "for step in range(9): pai.log(step=step, loss=hp.lr)"
    assert search(cell, sampler="random", pruner="hyperband", warmup=2, trials=6).result(WAIT).state == "done"


def test_one_trial_is_stopped_and_the_others_go_on(search: Any, tmp_path: Path) -> None:
    cell = """
import pathlib, time
mark = pathlib.Path(hp.mark)
first = not mark.exists()
mark.touch()
for step in range(1000 if first else 1):
    pai.log(step=step, loss=hp.lr)
    time.sleep(0.02)
"""
    model = HyperParameters.of({"lr": between(0.0, 1.0, default=0.5), "mark": str(tmp_path / "mark")})
    going = search(cell, model, trials=3)
    until(lambda: going.trials and going.trials[0].curve)
    assert going.trials[0].state == "running"
    going.stop_trial(0)
    going.stop_trial(7)
    going.result(WAIT)
    assert [trial.state for trial in going.trials] == ["stopped", "done", "done"]


def test_stop_ends_all_of_it_and_a_resumed_study_tries_again_what_was_running(search: Any) -> None:
    slow = "import time\npai.log(step=0, loss=hp.lr)\ntime.sleep(hp.seconds)"
    model = HyperParameters.of({"lr": between(0.0, 1.0, default=0.5), "seconds": 60.0})
    going = search(slow, model)
    until(lambda: going.trials and going.trials[0].curve)
    before = going.trials[0].params
    going.cancel()
    with pytest.raises(RunCancelled, match="stopped before a trial was done"):
        going.result(WAIT)
    again = search(slow, model, plan={"hyperparameters": {"seconds": 0.0}}, trials=3, resume=True)
    again.result(WAIT)
    assert [trial.state for trial in again.trials] == ["done"] * 3
    assert again.trials[0].params == before


def test_a_session_that_closes_ends_the_search(search: Any, session: Session) -> None:
    going = search("import time\npai.log(step=0, loss=hp.lr)\ntime.sleep(60)")
    until(lambda: going.trials and going.trials[0].curve)
    session.close()
    with pytest.raises(RunCancelled):
        going.result(WAIT)
    assert len(session.runs) == 1


def test_a_resumed_study_goes_up_to_its_number_of_trials(search: Any) -> None:
    search(trials=3).result(WAIT)
    more = search(trials=5, resume=True)
    more.result(WAIT)
    assert len(more.trials) == 5
    enough = search(trials=4, resume=True)
    assert enough.result(WAIT) == more.best
    assert len(enough.trials) == 5


def test_trials_of_a_process_that_died_are_tried_again(search: Any, tmp_path: Path) -> None:
    script = f"""
import os, pathlib, sys
import paibook as pai
from paibook.hyperparameters import HyperParameters, between
from paibook.plan import Plan; from paibook.program import Program; from paibook.resources import Resources
model = HyperParameters.of({{"lr": between(0.0, 1.0, default=0.5), "name": "x"}}, "Model")
plan = Plan("allreduce", Program("import os; os._exit(9)"), Resources(1), "inline")
pai.search(plan, model, study="s", folder=pathlib.Path({str(tmp_path / "studies")!r}), trials=5, seed=1).result()
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    again = search(trials=2, resume=True)
    again.result(WAIT)
    assert [trial.state for trial in again.trials] == ["done", "done"]


class TestRefusals:
    def test_a_study_that_exists_or_does_not(self, search: Any) -> None:
        search(trials=1).result(WAIT)
        with pytest.raises(PlanError, match=r"the study 's' exists .*--resume"):
            search()
        with pytest.raises(PlanError, match=r"there is no study 't' in .*; there are: s"):
            search(study="t", resume=True)

    @pytest.mark.parametrize(
        ("changed", "what"),
        [({"metric": "other"}, "metric"), ({"direction": "maximize"}, "direction"), ({"which": "best"}, "which")],
    )
    def test_a_study_of_something_else(self, search: Any, changed: dict[str, str], what: str) -> None:
        search(trials=1).result(WAIT)
        with pytest.raises(PlanError, match=f"'s' has another {what}"):
            search(resume=True, **changed)

    def test_a_study_with_another_space(self, search: Any) -> None:
        search(trials=1).result(WAIT)
        with pytest.raises(PlanError, match="'s' has another space"):
            search(space={"lr": between(0.0, 2.0, default=0.5)}, resume=True)

    def test_a_damaged_file(self, search: Any, tmp_path: Path) -> None:
        (tmp_path / "studies").mkdir()
        (tmp_path / "studies" / "s.journal").write_text("nonsense\n")
        with pytest.raises(PaibookError, match=r"s\.journal is not a study, or is damaged"):
            search(resume=True)

    def test_a_folder_that_cannot_be_written(self, search: Any, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(PaibookError, match="cannot keep the study in"):
            search(folder=tmp_path / "file")

    def test_a_metric_that_is_never_logged(self, search: Any) -> None:
        with pytest.raises(PlanError, match=r"logs no metric 'acc' by pai.log.*it logs: loss, other"):
            search(metric="acc").result(WAIT)

    def test_a_cell_that_fails_ends_the_search_at_once_with_its_own_error(self, search: Any) -> None:
        going = search("1 / 0")
        with pytest.raises(ZeroDivisionError):
            going.result(WAIT)
        assert going.trials == []  # it is tried again when the study goes on

    def test_a_later_failure_is_that_trials_own(self, search: Any) -> None:
        going = search(
            "pai.log(step=0, loss=hp.lr)\nassert hp.lr < 0.5 or rank > 9, 'too large'", sampler="random", seed=1
        )
        going.result(WAIT)
        failed = [trial for trial in going.trials if trial.state == "failed"]
        assert failed
        assert all(trial.params["lr"] >= 0.5 and "too large" in trial.error for trial in failed)

    def test_a_metric_that_is_not_finite_fails_its_trial(self, search: Any) -> None:
        with pytest.raises(RunError, match="no trial of the study 's' succeeded; the latest failed: loss ended as nan"):
            search("pai.log(step=0, loss=float('nan'))", trials=2).result(WAIT)

    def test_nothing_to_search(self, search: Any) -> None:
        with pytest.raises(PlanError, match="nothing to search"):
            search(space={"lr": 0.1})

    def test_without_optuna(self, search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("paibook.studies.find_spec", lambda name: None)
        with pytest.raises(PaibookError, match=r"pip install 'paibook\[search\]'"):
            search()


def test_without_optuna_everything_else_is_there() -> None:
    code = "import sys; sys.modules['optuna'] = None; import paibook as pai, paibook_magics; pai.search, pai.between"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
class TestOnACluster:
    @pytest.fixture
    def embedded(self, runs_folder: Path) -> Iterator[Session]:
        session = Session("embedded")
        yield session
        session.close()

    def test_trials_run_side_by_side_on_ranks_of_their_own(self, embedded: Session, tmp_path: Path) -> None:
        together = """
import os, pathlib, time
folder = pathlib.Path(hp.folder)
(folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()
deadline = time.monotonic() + 30
while len({path.name.partition("-")[0] for path in folder.iterdir()}) < 2 and time.monotonic() < deadline:
    time.sleep(0.01)  # until another trial runs in another process
pai.log(step=0, loss=hp.lr, seen=len(list(folder.iterdir())))
"""
        marks = tmp_path / "marks"
        marks.mkdir()
        model = HyperParameters.of({"lr": between(0.0, 1.0, default=0.5), "folder": str(marks)})
        plan = Plan("allreduce", Program(together), Resources(1), "embedded")
        going = pai.search(plan, model, trials=4, jobs=2, folder=tmp_path, session=embedded)
        going.result(WAIT)
        assert going.jobs == 2
        assert [trial.state for trial in going.trials] == ["done"] * 4
        assert len({path.name.partition("-")[0] for path in marks.iterdir()}) == 2
        assert len(embedded.cluster.status().ranks) == 1  # the sibling's have ended

        with pytest.raises(PlanError, match=r"--jobs 40: 40 trials of 1 ranks take .* room for"):
            pai.search(plan, model, trials=40, jobs=40, folder=tmp_path, session=embedded).result(WAIT)

    def test_a_map_reduce_cell_is_searched_too(self, embedded: Session, tmp_path: Path) -> None:
        source = "def map(n):\n    pai.log(loss=(hp.x - n) ** 2)\n    yield 0, n\ndef reduce(key, values): yield key"
        options = {"inputs": [{"variable": "numbers"}], "format": None, "out": None, "out_kind": "none", "as": "list"}
        plan = Plan("mapreduce", Program(source), Resources(2), "embedded", options=options)
        going = pai.search(
            plan,
            {"x": between(0, 9, default=0)},
            trials=3,
            folder=tmp_path,
            session=embedded,
            variables={"numbers": [1, 2]},
        )
        assert going.result(WAIT).value is not None
