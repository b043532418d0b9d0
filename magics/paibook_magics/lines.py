"""The line magics ``%pai_cluster``, ``%pai_runs`` and ``%pai_gpus``."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from paibook import stop_requests
from paibook.attached import AttachedRun
from paibook.detached.handle import DetachedRun
from paibook.errors import PaibookError, PlanError
from paibook.run import RunRecord
from paibook.session import Session
from paibook_magics.allreduce_picture import allreduce_text, is_allreduce
from paibook_magics.console import Console, title_of
from paibook_magics.following import (
    STOP_SECONDS,
    TICK_SECONDS,
    follow_attached,
    follow_attached_blocking,
    follow_blocking,
)
from paibook_magics.panels import Panels, in_notebook
from paibook_magics.picture import Shown, plan_bundle
from paibook_magics.ps_picture import is_ps, ps_text
from paibook_magics.results import keep
from paibook_magics.summary import summary_text

if TYPE_CHECKING:
    from paibook.widgets.live_panel import LivePanel

CLUSTER_HELP = """Show and steer the cluster that this notebook's cells run on.

  %pai_cluster                   the cluster and its ranks
  %pai_cluster start             start it now, rather than with the first %%pai_* cell
  %pai_cluster attach REF        use another: tcp://HOST:8786, a scheduler file, ipyparallel:PROFILE, a connection file,
                                 embedded, inline, or the name of a variable that holds a Dask cluster or client
  %pai_cluster scale N           N workers, where the cluster is ours to scale
  %pai_cluster restart           fresh processes; the ranks' variables are forgotten
  %pai_cluster stop              end what was started; the next cell starts it again
"""

RUNS_HELP = """List and look into the runs of this machine.

  %pai_runs                      the latest runs
  %pai_runs -n 50                more of them
  %pai_runs show ID              plan, output, summary and metrics of one (the end of an id is enough)
  %pai_runs attach ID            follow one that another process drives, live, or look at one that has ended; also by
                                 the run of a job, for what its notebook runs
  %pai_runs resume ID            go on with a run that was cut short: %%pai_mapreduce, or %%pai_ps with checkpoints
  %pai_runs stop ID              stop one that runs, in whichever process
  %pai_runs result ID [-o NAME]  wait for a --detach run; its result and what it pulled become variables
  %pai_runs delete ID            forget one
"""


GPUS_HELP = """Show the GPUs of this machine: memory, load, and which kernel, rank or job holds them.

  %pai_gpus                      the GPUs; in a notebook, live, with a picker of each rank's cards
"""


class Lines:
    """The line magics of one notebook."""

    def __init__(self, session: Session, namespace: dict[str, Any]) -> None:
        self.session = session
        self._namespace = namespace
        self.panels = Panels()

    def gpus(self, line: str) -> None:
        """Run ``%pai_gpus LINE``."""
        from paibook.widgets.gpus import GpuPanel  # anywidget takes a while to import

        if words(line):
            raise PlanError(f"%pai_gpus {line}: not understood\n\n{GPUS_HELP}")
        self.show_panel(GpuPanel())

    def cluster(self, line: str) -> Any:
        """Run ``%pai_cluster LINE``."""
        found = words(line)
        actions: dict[str, Callable[..., Any]] = {
            "status": self._status,
            "start": self._start,
            "attach": self._attach,
            "scale": self._scale,
            "restart": self._restart,
            "stop": self._stop,
        }
        name, arguments = (found[0], found[1:]) if found else ("status", [])
        wanted = {"attach": 1, "scale": 1}.get(name, 0)
        if name not in actions or len(arguments) != wanted:
            raise PlanError(f"%pai_cluster {line}: not understood\n\n{CLUSTER_HELP}")
        return actions[name](*arguments)

    def runs(self, line: str) -> Any:
        """Run ``%pai_runs LINE``."""
        match words(line):
            case []:
                return self._list(20)
            case ["-n", count] if count.isdecimal():
                return self._list(int(count))
            case ["show", run_id]:
                return self._show(run_id)
            case ["attach", run_id]:
                return self._attach_blocking(run_id)
            case ["resume", run_id]:
                return self._resume(run_id)
            case ["stop", run_id]:
                return self._stop_run(run_id)
            case ["result", run_id]:
                return self._result(run_id, None)
            case ["result", run_id, "-o", name] if name.isidentifier():
                return self._result(run_id, name)
            case ["delete", run_id]:
                found = self._find(run_id)
                self.session.history.delete(found.id)
                print(f"deleted {found.id}")
                return None
        raise PlanError(f"%pai_runs {line}: not understood\n\n{RUNS_HELP}")

    def _status(self) -> Any:
        status = self.session.cluster.status()
        print(
            f"{status.reference} at {status.address}: {status.workers} workers, "
            f"room for {status.slots} ranks, {status.free} free"
        )
        if in_notebook():
            from paibook.widgets.cluster import ClusterPanel

            self.panels.show(ClusterPanel(self.session))
            return None
        return table([asdict(rank) for rank in status.ranks]) if status.ranks else None

    def _start(self) -> Any:
        began = time.monotonic()
        self.session.cluster.start()
        print(f"ready in {time.monotonic() - began:.1f} s")
        return self._status()

    def _attach(self, reference: str) -> Any:
        known = self._namespace.get(reference) if reference.isidentifier() else None
        self.session.attach(reference if known is None else known)
        return self._status()

    def _scale(self, text: str) -> Any:
        if not text.isdecimal() or int(text) < 1:
            raise PlanError(f"%pai_cluster scale takes a number of workers, 1 or more; got {text!r}")
        self.session.cluster.scale(int(text))
        return self._status()

    def _restart(self) -> Any:
        self.session.cluster.restart()
        return self._status()

    def _stop(self) -> None:
        self.session.cluster.close()
        print("stopped; the next cell that needs the cluster starts it again")

    def _list(self, count: int) -> Any:
        rows = []
        for record, _ in zip(self.session.history, range(count), strict=False):
            seconds = (record.ended or time.time()) - record.started
            started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started))
            rows.append(
                (record.id, record.name, record.runtime, record.state, started, round(seconds, 1), record.error)
            )
        columns = ["id", "name", "model", "state", "started", "seconds", "error"]
        listed = table(rows, columns=columns).set_index("id")
        if not in_notebook():
            return listed
        from paibook.widgets.runs import RunsPanel

        bundle = {"text/plain": repr(listed), "text/html": listed._repr_html_()}
        self.panels.show(RunsPanel(self.session, count, self._resume_beside), bundle)
        return None

    def show_panel(self, panel: LivePanel) -> None:
        """Show a panel: live in a notebook, as text elsewhere."""
        if in_notebook():
            self.panels.show(panel)
        else:
            print(panel.static()["text/plain"])
            panel.close()

    def _resume_beside(self, run_id: str) -> None:
        """Resume a run at a click: no cell waits for it, and its result is in its folder and the panel."""
        self.session.resume(self._find(run_id).id)

    def _find(self, run_id: str) -> RunRecord:
        try:
            return self.session.history.find(run_id)
        except PaibookError as error:
            raise PlanError(str(error)) from None

    def _show(self, run_id: str) -> Any:
        from paibook.run import read_output
        from paibook.widgets.figure import bundle

        history = self.session.history
        record = self._find(run_id)
        plan = history.plan(record.id)
        print(f"{record.id}: {record.state}{': ' + record.error if record.error else ''}")
        print(plan_bundle(plan)["text/plain"])
        print(read_output(history.directory(record.id), "stdout"), end="")
        if (summary := history.summary(record.id)) is not None:
            print(_told(summary))
        metrics = history.metrics(record.id)
        return Shown(bundle(metrics, title_of(plan))) if len(metrics) else None

    async def attach(self, run_id: str) -> None:
        """Run ``%pai_runs attach RUN_ID`` and wait for the run on the event loop, so that widgets stay alive."""
        run, console = self._attached(run_id)
        await follow_attached(run, console)
        print(_how_it_ended(run))

    def _attach_blocking(self, run_id: str) -> None:
        run, console = self._attached(run_id)
        follow_attached_blocking(run, console)
        print(_how_it_ended(run))

    def _attached(self, run_id: str) -> tuple[AttachedRun, Console]:
        history = self.session.history
        try:
            record = history.find_any(run_id)
        except PaibookError as error:
            raise PlanError(str(error)) from None
        console = Console(progress_after=0.0, began=(record.ended or time.time()) - record.started)
        run = history.attach(record.id, console.on_event, console.on_progress)
        console.watch(run)
        return run, console

    def _stop_run(self, run_id: str) -> None:
        history = self.session.history
        found = self._find(run_id)
        if found.state != "running":
            raise PlanError(f"run {found.id} has ended already: {found.state}")
        stop_requests.ask(history.directory(found.id))
        deadline = time.monotonic() + STOP_SECONDS
        while (state := history.record(found.id).state) == "running" and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)
        if state == "running":
            raise PlanError(
                f"run {found.id} was asked to stop {STOP_SECONDS:.0f} s ago and goes on; to end it at once, kill its "
                f"process, {found.pid}: all that it started ends with it"
            )
        print(f"{found.id}: {state}")

    def _result(self, run_id: str, out: str | None) -> Any:
        run = DetachedRun(self._find(run_id).id, self.session.history)
        kept = keep(run, self._namespace, out)
        has_variable = out is not None or run.plan.options.get("out") is not None
        if run.plan.runtime == "allreduce" and not has_variable:
            return run.result().values  # which a cell that waits shows as they come
        return kept

    def _resume(self, run_id: str) -> Any:
        record = self._find(run_id)
        console = Console()
        run = self.session.resume(record.id, console.on_event, console.on_progress)
        try:
            console.watch(run)
        except BaseException:
            run.cancel()  # nobody would follow it
            raise
        follow_blocking(run, console)
        return keep(run, self._namespace)


def _how_it_ended(run: AttachedRun) -> str:
    return f"{run.id} {run.state}{': ' + run.record.error if run.record.error else ''}"


def _told(summary: dict[str, Any]) -> str:
    if is_allreduce(summary):
        return allreduce_text(summary)
    return ps_text(summary) if is_ps(summary) else summary_text(summary, with_tables=True)


def table(rows: Any, **options: Any) -> Any:
    """Rows as a DataFrame, which a notebook shows as a table."""
    import pandas  # a third of the time that loading the extension takes

    return pandas.DataFrame(rows, **options)


def words(line: str) -> list[str]:
    """The words of a magic's line, as a shell takes them apart."""
    try:
        return shlex.split(line)
    except ValueError:  # a quotation mark that does not close
        return [line]
