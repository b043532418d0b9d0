"""The parameter server's driver: starts servers and workers, watches them, and ends the run as one."""

from __future__ import annotations

import ast
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paibook.clusters.contract import Cluster, Event, Ranks
from paibook.clusters.inline import InlineCluster
from paibook.comms.tls import RunCertificate
from paibook.comms.wire import ChannelClosed, HandshakeError, new_token
from paibook.errors import ClusterError, PlanError, ProgramError, RankLost, RunCancelled, RunError, UserCodeError
from paibook.plan import Plan
from paibook.runtimes import pulls
from paibook.runtimes.contract import Progress, RunContext
from paibook.runtimes.ps import checkpoints, coordinator, server, staleness, worker
from paibook.runtimes.ps.control import AddressBook, Control, Model
from paibook.runtimes.ps.group import Group
from paibook.runtimes.ps.holdups import HoldupNotices
from paibook.runtimes.ps.membership import Evicted
from paibook.runtimes.ps.messages import CoordinatorJob, Scene, ServerJob, Storage, WorkerJob, WorkerReport
from paibook.runtimes.ps.observer import Observer
from paibook.runtimes.ps.options import Options
from paibook.runtimes.ps.result import PSResult
from paibook.runtimes.ps.running_lines import RunningLines
from paibook.runtimes.ps.watched import never_logged
from paibook.runtimes.turns import check_before, kept, turn
from paibook.runtimes.workers import workers_on

OPTIONAL = {"update": ("weight", "grad"), "should_stop": ("status",)}  # functions, and their parameters
COORDINATOR_LOG = "coordinator.jsonl"  # in the run's folder
POLL_SECONDS = 0.2
UNSEEN_SECONDS = 5.0  # for a metric that --until names to be logged before it is said that nobody has
START_SECONDS = 60.0  # for the coordinator to announce itself
FETCH_SECONDS = 60.0  # for the model to be had although a server dies at the end
CAUSE_SECONDS = 2.0  # a broken connection is a symptom; its cause is reported within this time
EBB_SECONDS = 0.1  # for ranks to end by themselves once the connections are closed
END_SECONDS = 1.0  # for servers to end once they are told
STOP_SECONDS = 5.0  # for interrupted ranks to come back before they are interrupted again, then killed


class Driver:
    """Runs ``%%pai_ps`` cells."""

    def check(self, plan: Plan) -> None:
        """Refuse a plan that cannot work.

        Raises:
            ProgramError, PlanError, SyntaxError: Naming what is wrong.
        """
        plan.program.check("%%pai_ps", required={"train": ("ps",)}, optional=OPTIONAL)
        for name, function in plan.program.functions().items():
            if name in ("train", *OPTIONAL) and _yields(function):
                raise ProgramError(
                    f"%%pai_ps: {name!r} in {plan.program.filename}, line {function.lineno} has a `yield`, so that "
                    "calling it would do nothing; return a list, or yield in a function of its own"
                )
        if plan.resources.servers < 1:
            raise PlanError(f"%%pai_ps needs a server at least, as in --servers 1; got {plan.resources.servers}")
        if plan.targets is not None:
            raise PlanError("%%pai_ps runs on all its workers; choose how many with -n, not which with --targets")
        Options.of(plan, plan.resources.workers)

    def check_resume(self, plan: Plan, directory: Path) -> None:
        """Refuse to go on with a run that has left no checkpoint, or needs what was pushed from its notebook.

        Raises:
            PlanError: Saying which.
        """
        saving = Options.of(plan, plan.resources.workers).saving
        if saving is None or not saving.clock:
            raise PlanError("it has left no checkpoint; --checkpoint FOLDER --checkpoint-every N writes them")
        if plan.push:
            raise PlanError(
                f"it was given {', '.join(plan.push)} by its notebook, which is gone; run its cell again, which goes "
                f"on from the checkpoint in {saving.folder}"
            )

    def run(self, plan: Plan, cluster: Cluster, context: RunContext) -> PSResult:
        """Run the plan and return the trained tables; blocks.

        Raises:
            UserCodeError: The first failure in the cell, on a worker or in ``update`` on a server.
            RankLost, RunCancelled, RunError: As named.
        """
        self.check(plan)
        saving = Options.of(plan, plan.resources.workers).saving
        with turn(cluster, context), checkpoints.claim(saving):
            run = _Run(plan, context, cluster)
            check_before(context)
            return run.run()


class _Run:
    """One run: what is pending, what has died and was replaced, and how it all ends."""

    def __init__(self, plan: Plan, context: RunContext, cluster: Cluster) -> None:
        resources = plan.resources
        servers = cluster.ranks(resources.servers, role="server")
        workers = workers_on(cluster, resources, resources.workers)
        # Where the coordinator lives. It can be replaced where its log stays in reach: on the notebook's own machine.
        coordinators = _room(cluster)
        here = all(status.host == socket.gethostname() for status in coordinators().status())
        self._context = context
        self._options = options = Options.of(plan, workers.size)
        self._named = () if options.until is None else options.until.names
        self._log = str(context.directory / COORDINATOR_LOG) if here else None
        self._toward = _toward(servers, workers)
        crosses_hosts = any(self._toward(servers, rank) for rank in range(servers.size))
        self._scene = Scene(
            run=context.run,
            program=plan.program,
            hyperparameters=dict(plan.hyperparameters),
            variables=dict(context.variables),
            world_size=workers.size,
            servers=servers.size,
            consistency=options.consistency,
            token=new_token(),
            certificate=RunCertificate.new() if crosses_hosts else None,
            replicas=options.replicas,
            saving=options.saving,
        )
        self._storage = Storage(plan.resources.memory, str(context.directory), options.nan)
        self._timeout = plan.timeout
        self._deadline = None if plan.timeout is None else time.monotonic() + plan.timeout
        self._changed = threading.Event()
        self._lines = RunningLines(HoldupNotices(context.emit).on_event)
        emit = self._lines.on_event
        self._book = AddressBook(emit)
        self._address = ("", 0)
        most = options.max_restarts
        common = (emit, self._changed.set)
        self._workers = Group(
            workers,
            lambda: workers_on(cluster, resources, workers.size),
            worker.run,
            self._worker_job,
            *common,
            most,
        )
        self._servers = Group(
            servers,
            lambda: cluster.ranks(servers.size, role="server"),
            server.serve,
            self._server_job,
            *common,
            most if options.replicas else 0,
        )
        self._coordinators = Group(
            coordinators(),
            coordinators,
            coordinator.coordinate,
            self._coordinator_job,
            self._book.on_event,
            self._changed.set,
            most if here else 0,
        )
        self._groups = (self._coordinators, self._servers, self._workers)
        self._control: Control | None = None
        self._observer: Observer | None = None
        self._killed: list[int] = []  # workers
        self._tables: tuple[dict[str, Any], ...] = ()  # as declared when a process died last
        self._told_unseen = False

    def run(self) -> PSResult:
        """Start, watch, fetch, stop."""
        self._context.on_cancel(self._free)
        timer = None if self._timeout is None else threading.Timer(self._timeout, self._free)
        try:
            if timer is not None:
                timer.daemon = True
                timer.start()
            self._start()
            status = self._watch()
            result = self._result(status)
            assert self._control is not None
            self._control.shutdown()
            self._check_stop()  # it may have been cut short
            if not self._await(END_SECONDS):  # a process that came just now may not have heard of the end
                self._stop_all()
            self._check_checkpoints()
            return result
        except BaseException as error:
            cause = self._cause(error)
            self._stop_all()
            if isinstance(cause, RunCancelled):
                cause = RunCancelled(f"the run was stopped; {kept(self._workers.ranks.size, self._killed)}")
            if cause is error:
                raise
            raise cause from error
        finally:
            if timer is not None:
                timer.cancel()
            if self._observer is not None:
                self._observer.close()
            if self._control is not None:
                self._control.close()

    def _free(self) -> None:
        """It is time to stop, whoever does not answer at present."""
        self._changed.set()
        if self._control is not None:
            self._control.close()

    def _show(self, picture: dict[str, Any]) -> None:
        ended = {f"worker {worker['rank']}" for worker in picture["workers"] if worker["state"] == "ended"}
        lines = {name: line for name, line in sorted(self._lines.lines.items()) if name not in ended}
        self._context.progress(Progress("train", picture["clock"], None, "clocks", picture={**picture, "lines": lines}))

    def _check_checkpoints(self) -> None:
        """Raise what went wrong with the last checkpoint, which may be written when all else is done."""
        for group in (self._coordinators, self._servers):
            for error in group.errors().values():
                if isinstance(error, checkpoints.CheckpointFailed):
                    raise error

    def _coordinator_job(self, rank: int, incarnation: int) -> CoordinatorJob:
        asked = self._options
        until = None if asked.until is None else asked.until.text
        toward = self._toward(self._coordinators.ranks, rank)
        stopping = (until, asked.should_stop, asked.watched)
        return CoordinatorJob(self._scene, toward, *stopping, self._log, self._address[1])

    def _server_job(self, rank: int, incarnation: int) -> ServerJob:
        toward = self._toward(self._servers.ranks, rank)
        return ServerJob(self._scene, rank, self._address, incarnation, toward, self._storage, self._tables)

    def _worker_job(self, rank: int, incarnation: int) -> WorkerJob:
        asked = self._options
        return WorkerJob(self._scene, self._address, asked.watched, asked.decides, asked.wanted, incarnation)

    def _start(self) -> None:
        if self._scene.clock:
            assert self._scene.saving is not None
            text = f"training goes on from the checkpoint of clock {self._scene.clock} in {self._scene.saving.folder}\n"
            self._context.emit(Event("stderr", "ps", -1, text))
        if self._log is not None:
            Path(self._log).unlink(missing_ok=True)
        self._coordinators.start()
        began = time.monotonic()
        while (address := self._book.wait(0.05)) is None:
            self._check()
            if time.monotonic() > began + START_SECONDS:
                raise RunError(f"the coordinator did not come up within {START_SECONDS:.0f} s")
        self._address = address
        self._control = Control(address, self._scene.token, self._scene.certificate)
        self._observer = Observer(address, self._scene.token, self._show, self._scene.certificate)
        self._servers.start()
        self._workers.start()

    def _watch(self) -> dict[str, Any]:
        """Follow the run until every worker is done; returns the coordinator's last status."""
        began = time.monotonic()
        while True:
            self._changed.wait(POLL_SECONDS)
            self._changed.clear()
            self._check()
            done = self._workers.done()
            status = self._status()
            if status is not None:
                self._context.progress(Progress("train", status["clock"], None, "clocks"))
                if time.monotonic() > began + UNSEEN_SECONDS and status["clock"] > 0:
                    self._tell_unseen()
                if done and status["view"] is not None:
                    return status
                if status["view"] is None and time.monotonic() > began + START_SECONDS:
                    raise RunError(f"the parameter servers did not come up within {START_SECONDS:.0f} s")

    def _status(self) -> dict[str, Any] | None:
        """What the coordinator says; None while it is being replaced.

        Raises:
            RunError: A part of the model is lost.
        """
        assert self._control is not None
        try:
            status = self._control.status()
        except ChannelClosed:
            return None
        if status["fatal"]:
            # A symptom: the coordinator may hear of a death before the cluster says what it was.
            raise ChannelClosed(f"{status['fatal']}, and died: what it held cannot be had back")
        return status

    def _result(self, status: dict[str, Any]) -> PSResult:
        reason = status["reason"] or "train() returned on every worker"
        if unseen := self._tell_unseen():
            reason = f"{reason}. {unseen}"
        if self._observer is not None and (picture := self._observer.finish()) is not None:
            self._context.summarise(picture)
        model = self._fetch()
        for shard in model.shards:
            if shard["skipped"]:
                what = f"{shard['skipped']} rows of gradients with NaN or infinity"
                text = f"table {shard['table']!r}: server {shard['server']} skipped {what}\n"
                self._context.emit(Event("stderr", "ps", -1, text))
        reports: list[WorkerReport] = [pending.result(0) for pending in self._workers.pending]
        returned = tuple(report.returned for report in reports)
        pulled, differs = pulls.unpack(
            self._options.wanted, {rank: report.parcel for rank, report in enumerate(reports)}
        )
        observed = staleness.by_table(report.staleness for report in reports)
        held = (observed, model.shards, model.tables)
        return PSResult(status["clock"], reason, returned, model.size, pulled, differs, *held)

    def _tell_unseen(self) -> str:
        """Say once which metrics of the stop condition nobody has logged; returns that, or an empty text."""
        unseen = never_logged(self._named, self._logged())
        if unseen and not self._told_unseen:
            self._told_unseen = True
            self._context.emit(Event("stderr", "ps", -1, unseen + "\n"))
        return unseen

    def _logged(self) -> list[str]:
        """The names of the program's own metrics."""
        return [name for name in self._context.metrics.names if not name.startswith(staleness.PREFIX)]

    def _fetch(self) -> Model:
        assert self._control is not None
        deadline = time.monotonic() + FETCH_SECONDS
        while True:
            try:
                return self._control.fetch()
            except ChannelClosed:
                if time.monotonic() > deadline:
                    raise
            self._status()
            self._check()
            self._changed.wait(0.1)

    def _check(self) -> None:
        """Make good what can be, and raise what else has gone wrong so far."""
        self._check_stop()
        self._raise_failures()
        for group in self._groups:
            for rank, loss in group.errors().items():
                self._replace(group, rank, loss)

    def _check_stop(self) -> None:
        self._context.check_cancelled()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise RunError(f"the run took longer than its --timeout of {self._timeout:g} s and was stopped")

    def _raise_failures(self) -> None:
        """Raise the most telling of the errors that are no deaths."""
        errors = [error for group in self._groups for error in group.errors().values()]
        failures = [error for error in errors if not isinstance(error, (RankLost, Evicted))]
        if failures:
            # Of a death that cannot be made good, the others' broken connections are mere symptoms.
            fatal = [error for error in errors if isinstance(error, RankLost)] if not self._options.replicas else []
            raise min([*failures, *fatal], key=_importance)
        for group in (self._coordinators, self._servers):
            if not group.errors() and len(group.busy()) < len(group.pending):
                raise ChannelClosed(f"a {group.ranks.role} ended before the run did")  # there is a reason, mostly

    def _replace(self, group: Group, rank: int, loss: BaseException) -> None:
        role, incarnation = group.ranks.role, group.incarnations[rank]
        if group is not self._coordinators and self._control is not None:
            try:
                self._control.lost(role, rank, incarnation)
                status = self._control.status()
                fatal, self._tables = status["fatal"], tuple(status["tables"])
            except ChannelClosed:
                fatal = ""  # the coordinator is being replaced, and hears of it from the new process
            if fatal:
                cause = loss.cause if isinstance(loss, RankLost) else str(loss)
                raise RankLost(role, rank, f"{cause}; {fatal}: what it held cannot be had back")
        group.replace(rank, loss, self._check_stop)
        what = {"server": "its copies answer in its place", "worker": "it begins anew at its clock"}
        text = f"{loss}; {what.get(role, 'it goes on from its log')}, and it is replaced\n"
        self._context.emit(Event("stderr", "ps", -1, text))

    def _cause(self, error: BaseException) -> BaseException:
        """What lies behind an error that may be a mere symptom, such as a broken connection."""
        end = time.monotonic() + CAUSE_SECONDS
        while _importance(error) == 2 and not self._context.cancelled and time.monotonic() < end:
            if all(group.done() for group in self._groups):
                end = 0.0
            found = [(group, loss) for group in self._groups for loss in group.errors().values()]
            errors = [loss for group, loss in found if not group.recovers(loss)]
            error = min([error, *errors], key=_importance)
            self._changed.wait(0.05)
            self._changed.clear()
        if self._context.cancelled and not isinstance(error, UserCodeError):
            return error if isinstance(error, RunCancelled) else RunCancelled("the run was stopped")
        if isinstance(error, RankLost) and error.role == "server" and not self._options.replicas:
            hint = "the run cannot go on without its shard; with --servers 2 --replicas 1 another has a copy"
            return RankLost(error.role, error.rank, f"{error.cause}; {hint}")
        return error

    def _stop_all(self) -> None:
        """Free every rank: close its connections, interrupt it, and in the end replace it."""
        if self._control is not None:
            self._control.close()
            # The servers now end, and with them whatever a worker waits for; most need no interrupt.
            if self._await(EBB_SECONDS):
                return
        for attempt in range(2):
            for group in reversed(self._groups):
                if busy := group.busy():
                    group.ranks.interrupt(busy)
            if self._await(STOP_SECONDS * (attempt + 1)):
                return
        for group in reversed(self._groups):
            if busy := group.busy():
                if not self._context.cancelled:  # else RunCancelled says it
                    text = f"{group.ranks.role} ranks {busy} did not stop and are replaced\n"
                    self._context.emit(Event("stderr", "ps", -1, text))
                if group is self._workers:
                    self._killed = busy
                group.ranks.kill(busy)

    def _await(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not all(group.done() for group in self._groups):
            if time.monotonic() > end:
                return False
            self._changed.wait(0.05)
            self._changed.clear()
        return True


def _importance(error: BaseException) -> int:
    """0 for a cause, 2 for what merely follows from one, 1 for what may be either."""
    if isinstance(error, (UserCodeError, RankLost, RunCancelled, PlanError)):
        return 0
    return 2 if isinstance(error, (ChannelClosed, HandshakeError, KeyboardInterrupt)) else 1


def _room(cluster: Cluster) -> Callable[[], Ranks]:
    """Gives the coordinator's rank: one of the cluster's, or a thread of this process where there is no room left."""
    try:
        cluster.ranks(1, role="coordinator")
        return lambda: cluster.ranks(1, role="coordinator")
    except ClusterError:
        threads = InlineCluster()
        return lambda: threads.ranks(1, role="coordinator")


def _toward(servers: Ranks, workers: Ranks) -> Callable[[Ranks, int], str]:
    """For each rank a host elsewhere that must reach it; empty when everything is on one machine."""
    hosts = {status.host for ranks in (servers, workers) for status in ranks.status()}
    peers = sorted({socket.gethostname(), *hosts})

    def toward(ranks: Ranks, rank: int) -> str:
        own = ranks.status()[rank].host
        return next((peer for peer in peers if peer != own), "")

    return toward


def _yields(function: ast.AST) -> bool:
    """Whether a function is a generator: ``yield`` stands in it, and not in one of those that it defines."""
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
    return any(
        isinstance(node, (ast.Yield, ast.YieldFrom)) or (not isinstance(node, inner) and _yields(node))
        for node in ast.iter_child_nodes(function)
    )
