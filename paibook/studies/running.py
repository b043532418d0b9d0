"""A search being carried out: trials side by side, each a run of the session, pruned and stopped one by one."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paibook.clusters.contract import Cluster
from paibook.errors import PaibookError, PlanError, RunCancelled, RunError
from paibook.plan import Plan
from paibook.program import error_text
from paibook.run import Run
from paibook.session import Session
from paibook.studies.optuna_study import OptunaStudy
from paibook.studies.space import Space
from paibook.studies.trials import StepMeans, StudyOptions, Trial

LOOK_SECONDS = 0.1  # between looks at a trial's metrics
logger = logging.getLogger(__name__)


@dataclass
class _Active:
    """A trial that runs."""

    run: Run
    params: dict[str, Any]
    means: StepMeans
    began: float = field(default_factory=time.monotonic)
    pruned: bool = False
    stopped: bool = False
    read: int = 0


class Search:
    """A study being carried out in background threads.

    Args:
        plan: The cell.
        space: What is tried.
        options: How.
        variables: Values of the plan's pushed variables.
        session: Runs the trials.

    Raises:
        PlanError: The plan cannot work, the study exists or is another, or there is no room.
    """

    def __init__(
        self, plan: Plan, space: Space, options: StudyOptions, variables: Mapping[str, Any], session: Session
    ) -> None:
        name = options.study or f"{plan.name or plan.runtime}-{time.strftime('%Y%m%d-%H%M%S')}"
        self.plan = plan
        self.space = space
        self.options = replace(options, study=name)
        self.name = name
        session.check(plan)
        self._variables = variables
        self._session = session
        self._study = OptunaStudy(name, space, self.options)
        self.jobs = 0  # known when it has started
        self._active: dict[int, _Active] = {}
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._asked: set[int] = set()  # trials that have not ended
        self._cancelled = False
        self._error: BaseException | None = None
        self._failed = ""
        self._deadline = math.inf if options.timeout is None else time.monotonic() + options.timeout
        self._future: Future[Trial] = Future()
        self._importance: tuple[int, dict[str, float]] = (0, {})

    def start(self) -> Search:
        """Begin; returns at once."""
        threading.Thread(target=self._drive, name=f"paibook-study-{self.name}", daemon=True).start()
        return self

    def done(self) -> bool:
        """Whether it has ended, one way or another."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Trial:
        """Wait for the end; the best trial.

        Raises:
            RunCancelled: It was stopped before a trial was done.
            RunError: No trial succeeded; says why the latest failed.
            PlanError: The cell logs no metric of that name.
            TimeoutError: It is still going on after ``timeout`` seconds.
        """
        return self._future.result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end; what ``result`` would raise, or None."""
        return self._future.exception(timeout)

    def add_done_callback(self, callback: Callable[[Search], None]) -> None:
        """Call ``callback(search)`` when it ends, from a background thread; at once when it already has."""
        self._future.add_done_callback(lambda _future: callback(self))

    def cancel(self) -> None:
        """Stop all of it. Trials that run are tried again when the study is resumed. Returns at once."""
        self._cancelled = True
        with self._lock:
            active = list(self._active.values())
        for trial in active:
            trial.run.cancel()

    def stop_trial(self, number: int) -> None:
        """End one trial that runs, and go on with the others. Does nothing when it has ended. Returns at once."""
        with self._lock:
            trial = self._active.get(number)
        if trial is not None:
            trial.stopped = True
            trial.run.cancel()

    @property
    def path(self) -> Path:
        """The file the study is kept in."""
        return self._study.path

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._cancelled

    @property
    def trials(self) -> list[Trial]:
        """Every trial so far, in order, those that run included."""
        with self._lock:
            active = dict(self._active)
        return [
            trial if trial.number not in active else self._live(trial.number, active[trial.number])
            for trial in self._study.trials()
        ]

    @property
    def best(self) -> Trial | None:
        """The best trial that is done, or None."""
        number = self._study.best()
        return next((trial for trial in self._study.trials() if trial.number == number), None)

    @property
    def best_hyperparameters(self) -> dict[str, Any]:
        """All hyperparameters of the best trial; ``--hp`` and ``Plan`` take them.

        Raises:
            RunError: No trial is done yet.
        """
        best = self.best
        if best is None:
            raise RunError(f"no trial of the study {self.name!r} is done yet")
        return self.space.values(best.params)

    def importance(self) -> dict[str, float]:
        """The share of each hyperparameter in the metric, the largest first; empty while too little is known."""
        done = self._study.ended()
        if self._importance[0] != done:
            self._importance = (done, self._study.importance())
        return self._importance[1]

    def snapshot(self) -> dict[str, Any]:
        """The study as it stands, JSON-able, for whoever draws it."""
        best = self._study.best()
        return {
            "name": self.name,
            "metric": self.options.metric,
            "direction": self.options.direction,
            "wanted": self.options.trials,
            "running": not self.done(),
            "fields": self.space.described(),
            "trials": [trial.to_dict() for trial in self.trials],
            "best": best,
            "importance": self.importance(),
        }

    def __repr__(self) -> str:
        best = self.best
        found = f"best {self.options.metric} {best.value:.4g} in trial {best.number}" if best else "no trial is done"
        return f"<Search {self.name}: {len(self._study.trials())} of {self.options.trials} trials, {found}>"

    def _live(self, number: int, active: _Active) -> Trial:
        value = active.means.value(self.options.which, self.options.direction)
        seconds = time.monotonic() - active.began
        return Trial(number, "running", active.params, value, active.means.curve(), active.run.id, seconds)

    def _drive(self) -> None:
        slots: list[Cluster] = []
        try:
            slots = self._slots()
            threads = [
                threading.Thread(target=self._work, args=(slot,), name=f"paibook-trials-{i}", daemon=True)
                for i, slot in enumerate(slots)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except Exception as error:
            self._error = self._error or error
        finally:
            for slot in slots[1:]:
                slot.close()
        self._end()

    def _end(self) -> None:
        best = self.best
        if self._error is not None:
            self._future.set_exception(self._error)
        elif best is not None:
            self._future.set_result(best)
        elif self._cancelled:
            self._future.set_exception(RunCancelled("the search was stopped before a trial was done"))
        else:
            why = f"; the latest failed: {self._failed}" if self._failed else " (all were pruned or stopped)"
            self._future.set_exception(RunError(f"no trial of the study {self.name!r} succeeded{why}"))

    def _slots(self) -> list[Cluster]:
        """One cluster for each trial at once: the session's own, and siblings that hold ranks of their own."""
        cluster = self._session.cluster_of(self.plan)
        cluster.start()
        tasks_only = self.plan.runtime == "mapreduce"  # which share the workers as they come
        ranks = self.plan.resources.workers + self.plan.resources.servers
        status = cluster.status()
        jobs = self.options.jobs
        if jobs is None:
            jobs = max(1, status.workers // ranks) if self.plan.resources.workers else 1
        jobs = min(jobs, self.options.trials)
        own = sum(rank.role in ("worker", "server") for rank in status.ranks)
        needed = ranks * (jobs - 1) + max(0, ranks - own)
        if self.options.jobs is not None and jobs > 1 and needed > status.free and not tasks_only:
            raise PlanError(
                f"--jobs {jobs}: {jobs} trials of {ranks} ranks take {needed} more ranks and {cluster.reference} has "
                f"room for {status.free}; ask for fewer, or for fewer ranks with -n"
            )
        slots = [cluster]
        while len(slots) < jobs and (sibling := cluster.sibling()) is not None:
            slots.append(sibling)
        self.jobs = len(slots)
        return slots

    def _work(self, slot: Cluster) -> None:
        while True:
            with self._asking:
                if not self._goes_on():
                    return
                number, params = self._study.ask()
                self._asked.add(number)
            try:
                self._try(number, params, slot)
            except Exception as error:
                # Whatever it is, whoever waits for the search is to hear of it.
                self._error = self._error or error
                self._study.tell(number, "failed", error=_first_line(error), again=True)
                self.cancel()
            finally:
                self._asked.discard(number)

    def _goes_on(self) -> bool:
        return (
            not self._cancelled
            and self._error is None
            and time.monotonic() < self._deadline
            and self._study.ended() + len(self._asked) < self.options.trials
        )

    def _try(self, number: int, params: dict[str, Any], slot: Cluster) -> None:
        values = self.space.values(params)
        plan = replace(self.plan, hyperparameters=values, name=f"{self.name} · {number}")
        run = self._session.run(plan, self._variables, cluster=slot)
        active = _Active(run, params, StepMeans(self.options.metric))
        with self._lock:
            self._active[number] = active
        try:
            self._study.note_run(number, run.id)
            ended = threading.Event()
            run.add_done_callback(lambda _run: ended.set())
            if self._cancelled:
                run.cancel()
            while not ended.wait(LOOK_SECONDS):
                self._look(number, active, ended=False)
            self._look(number, active, ended=True)
            self._judge(number, active)
        finally:
            with self._lock:
                del self._active[number]

    def _look(self, number: int, active: _Active, ended: bool) -> None:
        new = active.run.metrics.since(active.read)
        active.read += len(new)
        active.means.add(new)
        for step, value in active.means.complete(ended):
            self._study.report(number, step, value)
        if new and not ended and not active.pruned and self._study.should_prune(number):
            active.pruned = True
            active.run.cancel()

    def _judge(self, number: int, active: _Active) -> None:
        """Tell the study how a trial ended. A failure before any trial went well ends the search."""
        error = active.run.exception(0)
        value = active.means.value(self.options.which, self.options.direction)
        if isinstance(error, RunCancelled) and (active.pruned or active.stopped):
            self._study.tell(number, "pruned" if active.pruned else "stopped")
        elif isinstance(error, RunCancelled):
            # Also where the session is closing, which a further trial would open again.
            self._study.tell(number, "stopped", again=True)
            self.cancel()
        elif error is not None:
            self._fail(number, _first_line(error), error)
        elif value is None:
            logged = ", ".join(sorted(active.means.others)) or "nothing"
            name = self.options.metric
            text = f"the cell logs no metric {name!r} by pai.log({name}=...); it logs: {logged}"
            self._fail(number, text, PlanError(f"--metric {name}: {text}"))
        elif not math.isfinite(value):
            self._fail(number, f"{self.options.metric} ended as {value}", None)
        else:
            self._study.tell(number, "done", value)

    def _fail(self, number: int, text: str, error: BaseException | None) -> None:
        self._failed = text
        first = error is not None and not any(trial.state in ("done", "pruned") for trial in self._study.trials())
        self._study.tell(number, "failed", error=text, again=first)
        if first:
            self._error = self._error or error
            self.cancel()


def _first_line(error: BaseException) -> str:
    text = (error_text(error).strip() or type(error).__name__).splitlines()[0]
    return text if isinstance(error, PaibookError) else f"{type(error).__name__}: {text}"
