"""One attempt at a cell on its ranks: what is pending, what has come back, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from paibook.clusters.contract import Event, OnEvent, Pending, Ranks
from paibook.comms.threads import ThreadGroup
from paibook.errors import RankLost, RunCancelled, RunError, UserCodeError
from paibook.runtimes.allreduce import worker
from paibook.runtimes.allreduce.cell import ACTIVITY, STATE_BEGUN, Cell, Report, World
from paibook.runtimes.allreduce.conflicts import conflict, described
from paibook.runtimes.allreduce.observer import Observer
from paibook.runtimes.allreduce.verdict import failed, is_cause, spell, verdict
from paibook.runtimes.allreduce.whereabouts import Whereabouts
from paibook.runtimes.contract import Progress, RunContext
from paibook.runtimes.turns import check_before, kept

STOP_SECONDS = 1.0  # for interrupted ranks to come back before they are killed
SURVIVE_SECONDS = 10.0  # the same, where what they keep is all that is left of a training
# For those that cannot say where they are: a library is being loaded, or C code holds on to Python.
SILENT_SECONDS = 5.0
IMPORT_SECONDS = 15.0  # for those that import a library, which is not broken off
INTERRUPT_AGAIN_SECONDS = 0.4
DELIVERY_SECONDS = 60.0  # for a large cell to reach a rank, where it is withdrawn
POLL_SECONDS = 0.1
SETTLE_SECONDS = 0.1  # when all ranks raise the same, none needs to be interrupted and their groups stay in step
LEAVE_SECONDS = 10.0  # from the first rank that leaves at a commit, for others to run the cell's ``finally`` blocks
CAUSE_SECONDS = 0.7  # a broken connection is a symptom; a lost rank is reported within 0.5 s


class _Arrivals:
    """Passes events on, and notes which ranks are in the cell, and where they wait; holds nothing of the cell."""

    def __init__(self, emit: OnEvent, changed: threading.Event, observer: Observer) -> None:
        self.begun: set[int] = set()
        self.awaited = False  # whether somebody waits for ranks to begin
        self.keeps = False
        self.waiting: dict[int, Whereabouts] = {}
        self.told: set[int] = set()  # who has said since then where it is
        self.imported: dict[int, float] = {}  # when a rank was last heard to be done with an import
        self._emit, self._changed, self._observer = emit, changed, observer

    def on_begun(self, rank: int) -> None:
        self.begun.add(rank)
        if self.awaited:
            self._changed.set()

    def on_event(self, event: Event) -> None:
        if event.kind == "progress" and event.data == STATE_BEGUN:
            self.keeps = True
        elif event.kind == "progress" and isinstance(event.data, dict) and ACTIVITY in event.data:
            self._observer.take(event.rank, event.data[ACTIVITY])
        elif event.kind == "progress" and isinstance(event.data, dict):
            self._note(event.rank, Whereabouts.from_json(event.data))
            self._changed.set()
        else:
            self._emit(event)

    def _note(self, rank: int, place: Whereabouts) -> None:
        before = self.waiting.get(rank)
        if before is not None and before.importing is not None and place.importing is None:
            self.imported[rank] = time.monotonic()
        self.waiting[rank] = place
        self.told.add(rank)


class Execution:
    """One attempt.

    Args:
        ranks, world, cell: What runs where.
        context: The run's.
        timeout: The cell's ``--timeout``, for messages.
        deadline: When it runs out, on the monotonic clock.

    Attributes:
        reports: What has come back, by rank.
        lost: Ranks whose processes ended.
        killed: Ranks that had to be killed.
        aborted: Whether the group was ended under the ranks.
    """

    def __init__(
        self,
        ranks: Ranks,
        world: World,
        cell: Cell,
        context: RunContext,
        timeout: float | None = None,
        deadline: float | None = None,
    ) -> None:
        check_before(context)
        self.reports: dict[int, Report] = {}
        self.aborted = False
        self.lost: dict[int, RankLost] = {}
        self.killed: list[int] = []
        self._timeout, self._deadline = timeout, deadline
        self._ranks, self._world, self._cell, self._context = ranks, world, cell, context
        self._pending: dict[int, Pending[Report]] = {}
        self._unexpected: dict[int, BaseException] = {}
        self._conflict: str | None = None
        self._changed = threading.Event()
        self._observer = Observer(ranks, world, cell, self._changed.set)
        self._arrivals = _Arrivals(context.emit, self._changed, self._observer)

    @property
    def keeps(self) -> bool:
        """Whether the cell has registered a state."""
        return self._arrivals.keeps

    @property
    def left(self) -> bool:
        """Whether ranks have left at a commit, to go on in a new group."""
        return any(report.left for report in self.reports.values())

    def run(self) -> dict[int, Report]:
        """Run to the end; returns every rank's report, or raises what the user should see."""
        self._context.on_cancel(self._changed.set)
        pendings = self._ranks.apply(
            worker.run,
            self._world,
            self._cell,
            ranks=self._cell.ranks,
            on_event=self._arrivals.on_event,
            on_begun=self._arrivals.on_begun,
        )
        # An error keeps the frames it passed, and the session keeps the error: what was pushed must not stay with it.
        self._cell = replace(self._cell, variables={})
        self._pending = dict(zip(self._cell.ranks, pendings, strict=True))
        for pending in pendings:
            pending.add_done_callback(lambda _: self._changed.set())
        self._watch()
        running = sorted(self._pending)
        if running:
            self._stop()
        if self._observer.communicates:
            self._tell(drawn=True)
        reports = self._conclude(running)
        if self._observer.communicates and not self.left:
            self._context.summarise(self._observer.draw())
        return reports

    def _watch(self) -> None:
        """Wait until every rank is done, or one has failed, or the user or the clock says stop."""
        failing: float | None = None
        leaving: float | None = None
        while True:
            self._collect()
            if not self._pending or self._context.cancelled or self.lost or self._unexpected:
                return
            if self._cell.check and not self.left and self._disagree():
                return
            now = time.monotonic()
            if failing is None and any(failed(report) for report in self.reports.values()):
                clear = any(is_cause(r) or r.interrupted for r in self.reports.values())
                failing = now + (SETTLE_SECONDS if clear else CAUSE_SECONDS)
            if leaving is None and self.left:
                leaving = now + LEAVE_SECONDS
            ends = [end for end in (self._deadline, failing, leaving) if end is not None]
            if ends and now >= min(ends):
                return
            drawing = self._draw_when_due(now)
            wakes = ends if drawing is None else [*ends, drawing]
            self._changed.wait(None if not wakes else min(wakes) - now)
            self._changed.clear()

    def _disagree(self) -> bool:
        """Whether ranks that have waited for long can never meet."""
        waiting = {rank: place for rank, place in self._arrivals.waiting.copy().items() if rank in self._pending}
        if waiting:
            ended = {rank: report.where for rank, report in self.reports.items() if not failed(report)}
            self._conflict = conflict(waiting, ended)
        return self._conflict is not None

    def _collect(self) -> None:
        finished = [rank for rank, pending in self._pending.items() if pending.done()]
        for rank in finished:
            self._file(rank, self._pending.pop(rank))
        if finished:
            self._tell()

    def _draw_when_due(self, now: float) -> float | None:
        """Show how the ranks stand, if that is due; gives when it will be."""
        due = self._observer.due()
        if due is not None and now >= due:
            self._tell(drawn=True)
            due = self._observer.due()
        return due

    def _tell(self, drawn: bool = False) -> None:
        done, total = len(self._cell.ranks) - len(self._pending), len(self._cell.ranks)
        picture = self._observer.draw() if drawn else None
        self._context.progress(Progress("cell", done, total, "ranks", picture=picture))

    def _file(self, rank: int, pending: Pending[Report]) -> None:
        try:
            self.reports[rank] = pending.result(0)
        except RankLost as error:
            self._observer.end(rank, "lost")
            if rank not in self.killed:
                self.lost[rank] = error
            return
        except (KeyboardInterrupt, RunCancelled):
            self.reports[rank] = Report(rank, interrupted=True, time=time.time())
        except BaseException as error:  # not the cell's own: those are in the report
            self._unexpected[rank] = error
            return
        self._observer.file(self.reports[rank])

    def _stop(self) -> None:
        """Interrupt the ranks that still run; kill those that ignore it.

        A rank is given its time from when the cell has begun there: one that is still receiving it cannot react.
        """
        began = time.monotonic()
        since: dict[int, float] = {}
        self._arrivals.told.clear()
        asked: dict[int, float] = {}
        self._abort_threads()
        self._arrivals.awaited = True
        while self._pending:
            now = time.monotonic()
            since.update({rank: now for rank in self._arrivals.begun & self._pending.keys() if rank not in since})
            late = sorted(r for r in self._pending if now >= self._patience(r, since.get(r, began + DELIVERY_SECONDS)))
            if late:
                self._kill(late)
            due = [r for r in sorted(self._pending) if now >= asked.get(r, 0.0) or (r in since and since[r] == now)]
            if due:
                self._ranks.interrupt(due)
                asked.update(dict.fromkeys(due, now + INTERRUPT_AGAIN_SECONDS))
            self._changed.wait(POLL_SECONDS)
            self._changed.clear()
            self._collect()

    def _patience(self, rank: int, since: float) -> float:
        """Until when a rank that was interrupted first at ``since`` has to come back."""
        if self._world.threads:
            return since + STOP_SECONDS
        if self.lost and self.keeps and not self._context.cancelled:
            return since + SURVIVE_SECONDS
        if rank not in self._arrivals.told:
            return since + SILENT_SECONDS
        if self._arrivals.waiting[rank].importing is not None:
            return since + IMPORT_SECONDS
        return max(since, self._arrivals.imported.get(rank, since)) + STOP_SECONDS

    def _abort_threads(self) -> None:
        if self._world.threads:
            self.aborted = True
            ThreadGroup.abort_named(self._world.id)  # an interrupt does not reach a thread that waits

    def _kill(self, ranks: Sequence[int]) -> None:
        self.killed += ranks
        self._ranks.kill(ranks)
        for rank in ranks:
            del self._pending[rank]
            self._observer.end(rank, "lost")
        if not self._context.cancelled:  # else RunCancelled says it
            text = f"{spell(ranks)} did not react to an interrupt and will be replaced; their variables are gone\n"
            self._context.emit(Event("stderr", self._ranks.role, ranks[0], text))

    def _conclude(self, running: Sequence[int]) -> dict[int, Report]:
        if self._context.cancelled:
            raise RunCancelled(f"the run was stopped{self._kept()}")
        if self._unexpected:
            rank = min(self._unexpected)
            error = self._unexpected[rank]
            raise RunError(f"rank {rank} could not run the cell: {type(error).__name__}: {error}") from error
        mismatch = self._conflict or (self._found_at_the_end() if self._cell.check and not self.left else None)
        places = {r: report.where for r, report in self.reports.items() if failed(report) and not is_cause(report)}
        places |= {rank: self._arrivals.waiting[rank] for rank in self.killed if rank in self._arrivals.waiting}
        where = f"; {described(places)}" if places else ""
        # What fails inside an operation that the others do not share is no cause.
        if mismatch is not None and all(r.where.call for r in self.reports.values() if is_cause(r)):
            raise RunError(f"the ranks' collectives do not match: {mismatch}{where}{self._kept()}")
        guilty = verdict(self.reports.values(), self.lost)
        timed_out = bool(running) and self._deadline is not None and time.monotonic() >= self._deadline
        if guilty is not None and not (timed_out and not self.lost and not any(map(is_cause, self.reports.values()))):
            # The original is the cause where it is at hand, so that a debugger finds its frames.
            raise self._with_places(guilty, places, mismatch) from getattr(guilty, "original", None)
        if timed_out:
            raise RunError(
                f"the cell took longer than its --timeout of {self._timeout:g} s and was stopped; "
                f"{spell(running)} {'was' if len(running) == 1 else 'were'} still running{where}{self._kept()}"
            )
        interrupted = [rank for rank, report in self.reports.items() if report.interrupted]
        if interrupted and not self.left:
            raise RunCancelled(f"a signal from outside interrupted {spell(interrupted)}{self._kept()}")
        return self.reports

    def _found_at_the_end(self) -> str | None:
        if len(self.reports) < 2:
            return None
        failures = {rank: report.where for rank, report in self.reports.items() if failed(report)}
        ended = {rank: report.where for rank, report in self.reports.items() if not failed(report)}
        return conflict(failures, ended)

    def _with_places(
        self, error: UserCodeError | RankLost, places: Mapping[int, Whereabouts], mismatch: str | None
    ) -> UserCodeError | RankLost:
        """The error, and where the other ranks were meanwhile."""
        notes = [described(places)] if places else []
        if isinstance(error, RankLost):
            cause, words, rest = error.cause.partition("; its last words")
            return RankLost(error.role, error.rank, "; ".join([cause, *notes]) + words + rest)
        raised = {r: report.where for r, report in self.reports.items() if is_cause(report)}
        if places and raised:
            notes = [described(raised).replace(" was at ", " raised in ").replace(" were at ", " raised in "), *notes]
        if mismatch is not None:
            notes.append(f"the ranks' collectives do not match: {mismatch}")
        if notes and self._world.threads and error.original is not None:
            error.original.add_note("; ".join(notes))  # the inline cluster raises it as it is
        text = error.traceback if not notes else error.traceback.rstrip("\n") + "\n\n" + "; ".join(notes) + "\n"
        return UserCodeError(error.where, error.name, error.message, text, error.original)

    def _kept(self) -> str:
        return "; " + kept(self._ranks.size, self.killed, self.lost)
