"""What runs on a rank: joining a world, and one cell."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import cast

import cloudpickle

from paibook.clusters.contract import Place
from paibook.comms.calls import regularly, watched
from paibook.comms.communicator import Communicator, CommunicatorError
from paibook.comms.imports import import_torch, settle_import
from paibook.comms.positions import Position, positioned
from paibook.errors import UserCodeError
from paibook.hyperparameters import HyperParameters
from paibook.metrics import Recorder, recording
from paibook.program import capture_error
from paibook.runtimes import pulls
from paibook.runtimes.allreduce.activity import Teller, has_communicated, told
from paibook.runtimes.allreduce.cell import ACTIVITY, REGROUP, STATE_BEGUN, Cell, Introduction, Report, Value, World
from paibook.runtimes.allreduce.interrupts import watching
from paibook.runtimes.allreduce.member import Member
from paibook.runtimes.allreduce.state import Regroup, Seat, seated
from paibook.runtimes.allreduce.whereabouts import Whereabouts
from paibook.runtimes.inspection import forget_failure, remember_failure


def introduce(place: Place, one_host: bool, token: bytes, backends: Sequence[str]) -> Introduction:
    """Leave the old world; returns what the driver needs to make a new one."""
    return Member.of(place).introduce(place.role, one_host, token, backends)


def get_ready(place: Place) -> None:
    """Import what a rank needs that joins a training, while the others go on with it."""
    import_torch()


def forget(place: Place) -> None:
    """Let go of the snapshots of a cell that has ended well."""
    Member.of(place).keeper.drop()


def run(place: Place, world: World, cell: Cell) -> Report:
    """Run a cell in the rank's namespace; what it raises is part of the report."""
    member = Member.of(place)
    seat = _seat(place, world, cell, member)
    member.comm.calls.reset(world.size)
    forget_failure()
    try:
        member.enter(world, cell.ranks)
        _prepare(place, world, cell, member)
        if not world.threads:
            _settle(cell)
        with _surroundings(place, world, cell, member, seat):
            value = cell.program.execute(place.namespace)
            if value is not None:
                place.emit("result", place.format(value))
    except Regroup as error:
        return _told(Report(place.rank, left=True, time=time.time()), member, seat, cell, error)
    except KeyboardInterrupt as error:
        return _told(Report(place.rank, interrupted=True, time=time.time()), member, seat, cell, error)
    except BaseException as error:  # SystemExit too: exit() in a cell must not end the rank
        if not world.threads:  # else the notebook's own %debug finds it
            remember_failure(error)
        return _told(_failure(place.rank, world, error), member, seat, cell, error)
    if not world.threads:
        member.tidy()
    parcel = pulls.pack(place.namespace, place.rank, cell.pull, cell.ranks)
    return _told(Report(place.rank, Value.of(value), parcel, time=time.time()), member, seat, cell)


@contextmanager
def _surroundings(place: Place, world: World, cell: Cell, member: Member, seat: Seat) -> Iterator[None]:
    """What a cell runs in."""
    thread, calls = threading.get_ident(), member.comm.calls

    def tell() -> None:
        frame = sys._current_frames().get(thread)
        place.emit("progress", Whereabouts.of(calls, cell.program.filename, frame).to_json())

    teller = Teller(member, cell.program.filename, lambda words: place.emit("progress", {ACTIVITY: words}))
    recorder = Recorder(lambda batch: place.emit("metric", batch), place.rank)
    here = Position(place.rank, world.size, cast(Communicator, member.comm))
    own = not world.threads  # the whole process is this rank's
    with (
        recording(recorder, own),
        positioned(here, own),
        seated(seat, own),
        _watched(cell, member, tell),
        regularly(teller.look),
        _interruptible(world, member, tell),
    ):
        yield


def _told(report: Report, member: Member, seat: Seat, cell: Cell, error: BaseException | None = None) -> Report:
    """A report with what the driver wants to know beside how the cell ended."""
    where = Whereabouts.of(member.comm.calls, cell.program.filename, error)
    activity = None
    if has_communicated(member):
        activity = told(member, cell.program.filename, error, threading.get_ident())
    return replace(report, steps=member.steps, kept=seat.kept(), where=where, activity=activity)


@contextmanager
def _watched(cell: Cell, member: Member, tell: Callable[[], None]) -> Iterator[None]:
    """Let the rank say where it is when it has been in one operation for long."""
    if not cell.check:
        yield
        return
    with watched(member.comm.calls, tell):
        yield


def _settle(cell: Cell) -> None:
    if cell.recovery is not None and cell.recovery.mark.torch:
        import_torch()  # the cell will; it might be interrupted while it does
    settle_import()


def _seat(place: Place, world: World, cell: Cell, member: Member) -> Seat:
    if cell.recovery is None:
        member.keeper.drop(cell.attempt)
    recovery = (world.keepers, world.token, cell.attempt, cell.recovery)
    # Told at once: when all ranks die together, no report will say it.
    announce = partial(place.emit, "progress", STATE_BEGUN)
    asked = partial(place.noticed, REGROUP)
    return Seat(place.rank, world.size, member.comm, member.keeper, *recovery, announce, asked)


def _prepare(place: Place, world: World, cell: Cell, member: Member) -> None:
    import paibook

    namespace = place.namespace
    namespace.update({name: cloudpickle.loads(data) for name, data in cell.variables.items()})
    namespace.update(
        comm=member.comm,
        rank=place.rank,
        world_size=world.size,
        hp=HyperParameters(**cell.hyperparameters),
        pai=paibook,
    )


@contextmanager
def _interruptible(world: World, member: Member, tell: Callable[[], None]) -> Iterator[None]:
    if world.threads:
        yield
        return
    with watching(member.sockets, tell):
        yield


def _failure(rank: int, world: World, error: BaseException) -> Report:
    now = time.time()
    captured = capture_error(error, f"rank {rank}")
    if world.threads:
        # Same process: hand over the exception itself, so that a debugger finds its frames.
        captured = UserCodeError(captured.where, captured.name, captured.message, captured.traceback, error)
    return Report(rank, error=captured, time=now, consequence=_is_consequence(error))


def _is_consequence(error: BaseException) -> bool:
    """Whether a peer's end explains this error: its connections broke."""
    if isinstance(error, CommunicatorError):
        return True
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)
