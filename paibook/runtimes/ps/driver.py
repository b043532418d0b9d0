"""The parameter server's driver: starts servers and workers, watches them, and ends the run as one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from paibook.clusters.contract import Cluster, Event, Pending, Ranks
from paibook.comms.tls import RunCertificate
from paibook.comms.wire import ChannelClosed, HandshakeError, new_token
from paibook.errors import PlanError, RankLost, RunCancelled, RunError, UserCodeError
from paibook.plan import Plan
from paibook.runtimes import pulls
from paibook.runtimes.contract import Progress, RunContext
from paibook.runtimes.ps import server, staleness, worker
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.control import AddressBook, Control
from paibook.runtimes.ps.coordinator import Until
from paibook.runtimes.ps.holdups import HoldupNotices
from paibook.runtimes.ps.messages import Scene, ServerJob, WorkerJob, WorkerReport
from paibook.runtimes.ps.result import PSResult
from paibook.runtimes.ps.watched import never_logged
from paibook.runtimes.turns import check_before, kept, turn

POLL_SECONDS = 0.2
START_SECONDS = 60.0  # for servers to announce themselves
CAUSE_SECONDS = 2.0  # a broken connection is a symptom; its cause is reported within this time
EBB_SECONDS = 0.1  # for ranks to end by themselves once the connections are closed
STOP_SECONDS = 5.0  # for interrupted ranks to come back before they are interrupted again, then killed


class Driver:
    """Runs ``%%pai_ps`` cells."""

    def check(self, plan: Plan) -> None:
        """Refuse a plan that cannot work.

        Raises:
            ProgramError, PlanError, SyntaxError: Naming what is wrong.
        """
        plan.program.check("%%pai_ps", required={"train": ("ps",)}, optional={"update": ("weight", "grad")})
        _consistency(plan)
        if plan.options.get("until"):
            Until.parse(str(plan.options["until"]))
        if plan.resources.servers < 1:
            raise PlanError(f"%%pai_ps needs a server at least, as in --servers 1; got {plan.resources.servers}")
        if plan.targets is not None:
            raise PlanError("%%pai_ps runs on all its workers; choose how many with -n, not which with --targets")
        _wanted(plan, plan.resources.workers)

    def run(self, plan: Plan, cluster: Cluster, context: RunContext) -> PSResult:
        """Run the plan and return the trained tables; blocks.

        Raises:
            UserCodeError: The first failure in the cell, on a worker or in ``update`` on a server.
            RankLost, RunCancelled, RunError: As named.
        """
        self.check(plan)
        with turn(cluster, context):
            servers = cluster.ranks(plan.resources.servers, role="server")
            workers = cluster.ranks(plan.resources.workers, role="worker", gpus=plan.resources.gpus_per_worker)
            check_before(context)
            return _Run(plan, context, servers, workers).run()


class _Run:
    """One run: what is pending, what the coordinator knows, and how it all ends."""

    def __init__(self, plan: Plan, context: RunContext, servers: Ranks, workers: Ranks) -> None:
        self._context = context
        self._servers, self._workers = servers, workers
        self._until = Until.parse(str(plan.options["until"])) if plan.options.get("until") else None
        self._watched = self._until.names if self._until else ()
        self._wanted = _wanted(plan, workers.size)
        self._toward = _toward(servers, workers)
        self._scene = Scene(
            run=context.run,
            program=plan.program,
            hyperparameters=dict(plan.hyperparameters),
            variables=dict(context.variables),
            world_size=workers.size,
            servers=servers.size,
            consistency=_consistency(plan),
            token=new_token(),
            certificate=RunCertificate.new() if any(map(self._toward, range(servers.size))) else None,
        )
        self._timeout = plan.timeout
        self._deadline = None if plan.timeout is None else time.monotonic() + plan.timeout
        self._serving: list[Pending[None]] = []
        self._working: list[Pending[Any]] = []
        self._control: Control | None = None
        self._killed: list[int] = []  # workers
        self._changed = threading.Event()

    def run(self) -> PSResult:
        """Start, watch, fetch, stop."""
        self._context.on_cancel(self._changed.set)
        try:
            self._start()
            status = self._watch()
            assert self._control is not None
            result = self._result(self._control, status)
            self._control.shutdown()
            self._await(self._serving, STOP_SECONDS)
            return result
        except BaseException as error:
            cause = self._cause(error)
            self._stop_all()
            if isinstance(cause, RunCancelled):
                cause = RunCancelled(f"the run was stopped; {kept(self._workers.size, self._killed)}")
            if cause is error:
                raise
            raise cause from error
        finally:
            if self._control is not None:
                self._control.close()

    def _start(self) -> None:
        book = AddressBook(self._servers.size, HoldupNotices(self._context.emit).on_event)
        until = None if self._until is None else self._until.text
        self._serving = self._servers.apply(
            server.serve,
            each=lambda rank: (ServerJob(self._scene, rank, self._toward(rank), until if rank == 0 else None),),
            on_event=book.on_event,
        )
        self._note_ends(self._serving)
        began = time.monotonic()
        while not book.wait(0.05):
            self._check()
            if time.monotonic() > began + START_SECONDS:
                raise RunError(f"the parameter servers did not come up within {START_SECONDS:.0f} s")
        self._control = Control(book.addresses(), self._scene.token, self._scene.certificate)
        job = WorkerJob(self._scene, book.addresses(), self._watched, self._wanted)
        self._working = self._workers.apply(worker.run, job, on_event=self._context.emit)
        self._note_ends(self._working)

    def _watch(self) -> dict[str, Any]:
        """Follow the run until every worker is done; returns server 0's last status."""
        assert self._control is not None
        while True:
            self._changed.wait(POLL_SECONDS)
            self._changed.clear()
            self._check()
            done = all(pending.done() for pending in self._working)
            status = self._control.status()
            self._context.progress(Progress("train", status["clock"], None, "clocks"))
            if done:
                return status

    def _result(self, control: Control, status: dict[str, Any]) -> PSResult:
        reason = f"--until {status['reason']}" if status["reason"] else "train() returned on every worker"
        if unseen := never_logged(self._watched, self._logged()):
            reason = f"{reason}. {unseen}"
            self._context.emit(Event("stderr", "ps", -1, unseen + "\n"))
        size, tables = control.fetch()
        reports: list[WorkerReport] = [pending.result(0) for pending in self._working]
        returned = tuple(report.returned for report in reports)
        pulled, differs = pulls.unpack(self._wanted, {rank: report.parcel for rank, report in enumerate(reports)})
        observed = staleness.by_table(report.staleness for report in reports)
        return PSResult(status["clock"], reason, returned, size, pulled, differs, observed, tables)

    def _logged(self) -> list[str]:
        """The names of the program's own metrics."""
        return [name for name in self._context.metrics.names if not name.startswith(staleness.PREFIX)]

    def _check(self) -> None:
        """Raise what has gone wrong so far."""
        self._context.check_cancelled()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise RunError(f"the run took longer than its --timeout of {self._timeout:g} s and was stopped")
        failures = [
            error
            for pending in (*self._serving, *self._working)
            if pending.done() and (error := _error(pending)) is not None
        ]
        if failures:
            raise min(failures, key=_importance)
        if self._working and any(pending.done() for pending in self._serving):
            raise RunError("a parameter server ended before the run did")

    def _cause(self, error: BaseException) -> BaseException:
        """What lies behind an error that may be a mere symptom, such as a broken connection."""
        end = time.monotonic() + CAUSE_SECONDS
        while _importance(error) == 2 and not self._context.cancelled and time.monotonic() < end:
            if all(pending.done() for pending in (*self._serving, *self._working)):
                end = 0.0
            try:
                self._check()
            except (PlanError, RunError, RunCancelled, UserCodeError) as better:
                error = min(error, better, key=_importance)
            self._changed.wait(0.05)
            self._changed.clear()
        if self._context.cancelled and not isinstance(error, UserCodeError):
            return error if isinstance(error, RunCancelled) else RunCancelled("the run was stopped")
        if isinstance(error, RankLost) and error.role == "server":
            hint = "the run cannot go on without its shard (replicas come later)"
            return RankLost(error.role, error.rank, f"{error.cause}; {hint}")
        return error

    def _stop_all(self) -> None:
        """Free every rank: close its connections, interrupt it, and in the end replace it."""
        if self._control is not None:
            self._control.close()
            # The servers now end, and with them whatever a worker waits for; most need no interrupt.
            if self._await([*self._working, *self._serving], EBB_SECONDS):
                return
        for attempt in range(2):
            for ranks, pendings in ((self._workers, self._working), (self._servers, self._serving)):
                busy = [rank for rank, pending in enumerate(pendings) if not pending.done()]
                if busy:
                    ranks.interrupt(busy)
            if self._await([*self._working, *self._serving], STOP_SECONDS * (attempt + 1)):
                return
        for ranks, pendings in ((self._workers, self._working), (self._servers, self._serving)):
            busy = [rank for rank, pending in enumerate(pendings) if not pending.done()]
            if busy:
                if not self._context.cancelled:  # else RunCancelled says it
                    text = f"{ranks.role} ranks {busy} did not stop and are replaced\n"
                    self._context.emit(Event("stderr", "ps", -1, text))
                if ranks is self._workers:
                    self._killed = busy
                ranks.kill(busy)

    def _await(self, pendings: list[Any], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not all(pending.done() for pending in pendings):
            if time.monotonic() > end:
                return False
            self._changed.wait(0.05)
            self._changed.clear()
        return True

    def _note_ends(self, pendings: list[Any]) -> None:
        for pending in pendings:
            pending.add_done_callback(lambda _: self._changed.set())


def _consistency(plan: Plan) -> Consistency:
    return Consistency.parse(plan.options.get("consistency", "bsp"), plan.options.get("staleness", 0))


def _wanted(plan: Plan, size: int) -> pulls.Wanted:
    """What to pull; ``size`` is the number of workers, 0 where it is not known yet."""
    wanted = pulls.parse(plan.pull)
    for name, rank in wanted:
        if size and rank is not None and rank >= size:
            raise PlanError(f"--pull {name}@{rank}: there are ranks 0 to {size - 1}")
    return wanted


def _error(pending: Pending[Any]) -> BaseException | None:
    try:
        return pending.exception(0)
    except BaseException as error:  # a cancelled future raises instead of returning; either way it is the answer
        return error


def _importance(error: BaseException) -> int:
    """0 for a cause, 2 for what merely follows from one, 1 for what may be either."""
    if isinstance(error, (UserCodeError, RankLost, RunCancelled, PlanError)):
        return 0
    return 2 if isinstance(error, (ChannelClosed, HandshakeError, KeyboardInterrupt)) else 1


def _toward(servers: Ranks, workers: Ranks) -> Callable[[int], str]:
    """For each server a host elsewhere that must reach it; empty when everything is on one machine."""
    hosts = [status.host for status in servers.status()]
    peers = sorted({socket.gethostname(), *hosts, *(status.host for status in workers.status())})
    return lambda rank: next((peer for peer in peers if peer != hosts[rank]), "")
