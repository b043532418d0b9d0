"""A worker: executes the cell in its rank's namespace, then calls the cell's ``train(ps)``."""

from __future__ import annotations

import sys
from typing import Any

import cloudpickle

from paibook.clusters.contract import Place
from paibook.comms.wire import ChannelClosed, HandshakeError
from paibook.errors import ProgramError
from paibook.hyperparameters import HyperParameters
from paibook.metrics import recording
from paibook.program import capture_error
from paibook.runtimes.ps.client import ParameterServer
from paibook.runtimes.ps.messages import WorkerJob
from paibook.runtimes.ps.watched import WatchedRecorder


def run(place: Place, job: WorkerJob) -> Any:
    """Take part in one run; returns what ``train`` returned, or None where that cannot be sent.

    Raises:
        UserCodeError: The cell or ``train`` raised.
        ChannelClosed: A server ended; its own error says why.
    """
    recorder = WatchedRecorder(lambda batch: place.emit("metric", batch), place.rank, job.watched)
    with recording(recorder):
        try:
            return _portable(_train(place, job, recorder))
        except (ChannelClosed, HandshakeError):
            raise
        except Exception as error:
            raise capture_error(error, f"rank {place.rank}") from error


def _train(place: Place, job: WorkerJob, recorder: WatchedRecorder) -> Any:
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
    ps = ParameterServer.connect(place.rank, scene.world_size, job.addresses, scene.token, recorder.take)
    try:
        returned = train(ps)
        ps.retire()
    finally:
        ps.close()
    return returned


def _portable(value: Any) -> Any:
    try:
        cloudpickle.dumps(value)
    except Exception as error:  # user objects may fail to pickle in any way at all
        print(f"what train() returned stays on the rank, for it cannot be sent: {error}", file=sys.stderr)
        return None
    return value
