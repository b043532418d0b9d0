"""A worker: executes the cell in its rank's namespace, then calls the cell's ``train(ps)``."""

from __future__ import annotations

import ast
import sys
from typing import Any

import cloudpickle

from paibook.clusters.contract import Place
from paibook.comms.positions import Position, positioned
from paibook.comms.wire import ChannelClosed, HandshakeError
from paibook.errors import PlanError, ProgramError
from paibook.hyperparameters import HyperParameters
from paibook.metrics import recording
from paibook.program import capture_error
from paibook.runtimes import pulls
from paibook.runtimes.inspection import forget_failure, remember_failure
from paibook.runtimes.ps.client import ParameterServer
from paibook.runtimes.ps.messages import WorkerJob, WorkerReport
from paibook.runtimes.ps.running_lines import running_lines
from paibook.runtimes.ps.staleness import Histogram
from paibook.runtimes.ps.watched import WatchedRecorder


def run(place: Place, job: WorkerJob) -> WorkerReport:
    """Take part in one run.

    Raises:
        UserCodeError: The cell or ``train`` raised.
        ChannelClosed: A server ended; its own error says why.
    """
    forget_failure()
    recorder = WatchedRecorder(lambda batch: place.emit("metric", batch), place.rank, job.watched)
    lines = running_lines(place, job.scene.program.filename)
    with recording(recorder), positioned(Position(place.rank, job.scene.world_size)), lines:
        try:
            returned, staleness = _train(place, job, recorder)
            returned = _portable(returned)
        except (ChannelClosed, HandshakeError):
            raise
        except Exception as error:
            remember_failure(error)
            raise capture_error(error, f"rank {place.rank}") from error
    parcel = pulls.pack(place.namespace, place.rank, job.pull, range(job.scene.world_size))
    return WorkerReport(returned, parcel, staleness)


def _train(place: Place, job: WorkerJob, recorder: WatchedRecorder) -> tuple[Any, dict[str, Histogram]]:
    """What the cell's ``train`` returns, and how stale its pulls were."""
    import paibook

    scene = job.scene
    place.namespace.update(scene.variables)
    place.namespace.update(
        pai=paibook, hp=HyperParameters(**scene.hyperparameters), rank=place.rank, world_size=scene.world_size
    )
    shown = scene.program.execute(place.namespace)
    if shown is not None:
        place.emit("result", place.format(shown))
    train = place.namespace["train"]
    if not callable(train):
        raise ProgramError(f"%%pai_ps needs a function named 'train'; the cell makes it a {type(train).__name__}")
    _check_pull(place, job)
    ps = ParameterServer(job, place.rank, recorder.take)
    try:
        returned = train(ps)
        ps.retire()
    finally:
        ps.close()
    return returned, ps.staleness.histograms()


def _check_pull(place: Place, job: WorkerJob) -> None:
    """Refuse to pull what will not be there: before training, not after hours of it."""
    for name, source in job.pull:
        if source in (None, place.rank) and name not in place.namespace and name not in _globals(job):
            raise PlanError(
                f"--pull {name}: the cell has no such variable at its top level; assign it there, or declare it "
                f"`global {name}` in train()"
            )


def _globals(job: WorkerJob) -> set[str]:
    nodes = ast.walk(job.scene.program.tree())
    return {name for node in nodes if isinstance(node, ast.Global) for name in node.names}


def _portable(value: Any) -> Any:
    try:
        cloudpickle.dumps(value)
    except Exception as error:  # user objects may fail to pickle in any way at all
        print(f"what train() returned stays on the rank, for it cannot be sent: {error}", file=sys.stderr)
        return None
    return value
