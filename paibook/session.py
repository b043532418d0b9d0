"""The session: plans in, runs out. It owns the clusters it started and the history it writes."""

from __future__ import annotations

import atexit
import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import cloudpickle

from paibook.clusters import connect
from paibook.clusters.contract import Cluster, Event
from paibook.detached import outcome
from paibook.detached.handle import DetachedRun
from paibook.detached.launch import launch
from paibook.errors import PlanError
from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.run import Run, RunRecord
from paibook.runtimes.contract import Driver, Progress
from paibook.settings import settings

KEPT_RUNS = 10
_open: list[Session] = []


class Session:
    """What one notebook does on its clusters.

    Args:
        cluster: The cluster used by plans that name none of their own: a reference, or an object for ``connect``.
        history: Where runs are kept; the user's own history by default.
    """

    def __init__(self, cluster: Any = None, history: RunHistory | None = None) -> None:
        self.history = history or RunHistory(settings().runs)
        self._clusters: dict[str, Cluster] = {}
        self._lock = threading.Lock()
        self.runs: list[Run] = []
        self.cluster = self._adopt(connect(cluster if cluster is not None else settings().cluster))
        atexit.register(self.close)
        _open.append(self)

    def attach(self, reference: Any) -> Cluster:
        """Use another cluster from now on, after reaching it; the former one stays open.

        Raises:
            ClusterError: It cannot be reached; the session keeps the cluster it had.
        """
        made = self._known(reference) or connect(reference)
        cluster = self._known(made.reference) or made
        cluster.start()
        self.cluster = self._adopt(cluster)
        return cluster

    def cluster_of(self, plan: Plan) -> Cluster:
        """The cluster that a plan names, not started yet where it is new to this session."""
        return self._known(plan.cluster) or self._adopt(connect(plan.cluster))

    def check(self, plan: Plan) -> None:
        """Refuse a plan that cannot work, before anything is launched."""
        if not plan.options.get("sql"):
            plan.program.compile()
        driver_of(plan.runtime).check(plan)

    def run(
        self,
        plan: Plan,
        variables: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        cluster: Cluster | None = None,
    ) -> Run:
        """Check the plan, then carry it out in the background.

        Args:
            plan: ``plan.cluster`` names the cluster.
            variables: Values of the plan's pushed variables and named inputs.
            on_event, on_progress: Called from background threads while it runs.
            cluster: Use this one, a sibling of the plan's; the caller closes it.

        Raises:
            ProgramError, PlanError, DataError, SyntaxError: The plan cannot work; nothing was launched.
        """
        values = dict(variables or {})
        self.check(plan)
        driver = driver_of(plan.runtime)
        sizes = {name: pickled_size(name, values) for name in plan.push}
        cluster = cluster or self.cluster_of(plan)
        run_id, directory = self.history.new_directory(plan.runtime)
        record = RunRecord(run_id, plan.name, plan.runtime, plan.cluster, "running", time.time())
        record = replace(record, pid=os.getpid(), job=settings().job_run)
        run = Run(record, plan, directory, values, on_event, on_progress)
        run.pushed.update(sizes)
        self._remember(run)
        return run.start(driver, cluster)

    def detach(self, plan: Plan, variables: Mapping[str, Any] | None = None) -> DetachedRun:
        """Check the plan, then give it to a process of its own, which goes on when this one ends.

        Args:
            plan: ``plan.cluster`` names the cluster; an embedded one is started for this run alone.
            variables: Values of the plan's pushed variables and named inputs.

        Raises:
            ProgramError, PlanError, DataError, SyntaxError: The plan cannot work, or not without this process.
            RunError: The process did not come up.
        """
        values = dict(variables or {})
        self.check(plan)
        sizes = {name: pickled_size(name, values) for name in plan.push}
        if not self.cluster_of(plan).portable:
            raise PlanError(
                f"--detach: the cluster {plan.cluster} is this notebook's own, and ends with it; name one that others "
                "reach too, such as --cluster embedded or --cluster tls://HOST:8786"
            )
        run = launch(replace(plan, detach=True), values, self.history)
        run.pushed.update(sizes)
        return run

    def resume(
        self,
        run_id: str,
        on_event: Callable[[Event], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Run:
        """Go on with a run that was cut short, from the tasks that had finished or from its last checkpoint.

        Raises:
            PlanError: It runs, is done, or too little of it is left.
            PaibookError: No run, or several, are called so.
        """
        record = self.history.find(run_id)
        plan = self.history.plan(record.id)
        directory = self.history.directory(record.id)
        if record.state == "running":
            raise PlanError(f"run {record.id} is still running")
        driver = driver_of(plan.runtime)
        try:
            if record.state == "done":
                raise PlanError("it has nothing left to do")
            driver.check_resume(plan, directory)
        except PlanError as error:
            kind = f"a %%pai_{plan.runtime} run, {record.state}"
            raise PlanError(f"run {record.id} ({kind}) cannot be resumed: {error}") from None
        cluster = self.cluster_of(plan)
        # From here on it is this process's, whoever began it.
        again = replace(
            record, state="running", ended=None, error="", pid=os.getpid(), started=time.time(), detached=False
        )
        outcome.forget(directory)
        run = Run(again, plan, directory, {}, on_event, on_progress, resumed=True)
        self._remember(run)
        return run.start(driver, cluster)

    def _remember(self, run: Run) -> None:
        # Results can be large: beyond the latest, only the history on disk knows a run that has ended.
        ended = [known for known in self.runs if known.done()]
        for old in ended[: max(0, len(ended) - KEPT_RUNS)]:
            self.runs.remove(old)
        self.runs.append(run)

    def close(self) -> None:
        """Stop what runs and end every cluster this session started."""
        if self in _open:
            _open.remove(self)
        for run in self.runs:
            if not run.done():
                run.cancel()
        with self._lock:
            clusters, self._clusters = list(self._clusters.values()), {}
        for cluster in clusters:
            cluster.close()

    def _known(self, reference: Any) -> Cluster | None:
        return self._clusters.get(reference) if isinstance(reference, str) else None

    def _adopt(self, cluster: Cluster) -> Cluster:
        with self._lock:
            return self._clusters.setdefault(cluster.reference, cluster)


def current() -> Session:
    """The notebook's session: the first one that is still open, or a new one where there is none."""
    return _open[0] if _open else Session()


def driver_of(runtime: str) -> Driver:
    """The driver of a programming model, imported when first used."""
    driver: Driver = importlib.import_module(f"paibook.runtimes.{runtime}.driver").Driver()
    return driver


def pickled_size(name: str, variables: Mapping[str, Any]) -> int:
    """Bytes a variable takes on its way to the ranks. Arrays are counted, not copied.

    Raises:
        PlanError: There is no such variable, or it cannot be pickled; names it.
    """
    if name not in variables:
        raise PlanError(f"--push {name}: the notebook has no variable {name!r}")
    buffers: list[Any] = []
    try:
        head = cloudpickle.dumps(variables[name], protocol=5, buffer_callback=buffers.append)
    except Exception as error:  # whatever the user's object raises while it is pickled
        kind = type(variables[name]).__name__
        raise PlanError(
            f"--push {name}: a {kind} cannot be sent to the ranks ({error}); make it there instead"
        ) from error
    return len(head) + sum(buffer.raw().nbytes for buffer in buffers)
