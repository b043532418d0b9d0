"""What runs on a rank: joining a world, and one cell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import cloudpickle

from paibook.clusters.contract import Place
from paibook.comms.communicator import CommunicatorError
from paibook.errors import UserCodeError
from paibook.hyperparameters import HyperParameters
from paibook.metrics import Recorder, recording
from paibook.program import capture_error
from paibook.runtimes import pulls
from paibook.runtimes.allreduce.cell import Cell, Introduction, Report, Value, World
from paibook.runtimes.allreduce.interrupts import watching
from paibook.runtimes.allreduce.member import Member, begin_import
from paibook.runtimes.allreduce.state import Seat, seated


def introduce(place: Place, one_host: bool, token: bytes) -> Introduction:
    """Leave the old world; returns what the driver needs to make a new one."""
    return Member.of(place).introduce(place.role, one_host, token)


def forget(place: Place) -> None:
    """Let go of the snapshots of a cell that has ended well."""
    Member.of(place).keeper.drop()


def run(place: Place, world: World, cell: Cell) -> Report:
    """Run a cell in the rank's namespace; what it raises is part of the report."""
    member = Member.of(place)
    seat = _seat(place, world, cell, member)
    try:
        place.emit("stdout", "")  # tells the driver that the cell has arrived: from here on an interrupt is heeded
        member.enter(world, cell.ranks)
        _prepare(place, world, cell, member)
        recorder = Recorder(lambda batch: place.emit("metric", batch), place.rank)
        with (
            recording(recorder, whole_process=not world.threads),
            seated(seat, whole_process=not world.threads),
            _interruptible(world, member),
        ):
            value = cell.program.execute(place.namespace)
            if value is not None:
                place.emit("result", place.format(value))
    except KeyboardInterrupt:
        return Report(place.rank, interrupted=True, time=time.time(), steps=member.steps, kept=seat.kept())
    except BaseException as error:  # SystemExit too: exit() in a cell must not end the rank
        return replace(_failure(place.rank, world, error, member.steps), kept=seat.kept())
    if not world.threads:
        member.tidy()
    parcel = pulls.pack(place.namespace, place.rank, cell.pull, cell.ranks)
    return Report(place.rank, Value.of(value), parcel, time=time.time(), steps=member.steps, kept=seat.kept())


def _seat(place: Place, world: World, cell: Cell, member: Member) -> Seat:
    if cell.recovery is None:
        member.keeper.drop(cell.attempt)
    elif not world.threads:
        begin_import()  # the snapshot's ranks had it; before the cell does so itself, and is interrupted there
    recovery = (world.keepers, world.token, cell.attempt, cell.recovery)
    return Seat(place.rank, world.size, member.comm, member.keeper, *recovery)


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
def _interruptible(world: World, member: Member) -> Iterator[None]:
    if world.threads:
        yield
        return
    with watching(member.sockets):
        yield


def _failure(rank: int, world: World, error: BaseException, steps: tuple[Any, ...]) -> Report:
    now = time.time()
    captured = capture_error(error, f"rank {rank}")
    if world.threads:
        # Same process: hand over the exception itself, so that a debugger finds its frames.
        captured = UserCodeError(captured.where, captured.name, captured.message, captured.traceback, error)
    return Report(rank, error=captured, time=now, consequence=_is_consequence(error), steps=steps)


def _is_consequence(error: BaseException) -> bool:
    """Whether a peer's end explains this error: its connections broke."""
    if isinstance(error, CommunicatorError):
        return True
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)
