"""Loaded by each worker process of the embedded cluster before it starts."""

from __future__ import annotations

import os
import signal
from typing import Any

from paibook.clusters import engine_host  # noqa: F401  (the first cell with ranks asks for it)


def dask_setup(worker: Any) -> None:
    """Leave the notebook's process group, and close the worker's plain HTTP port."""
    # Stop signals the notebook's whole process group, and must not end the workers.
    if hasattr(os, "setsid") and os.getpgrp() != os.getpid():
        os.setsid()
        _hear_stop()
    # Preloads run before the worker starts its HTTP server.
    worker.loop.add_callback(_close_http, worker)


def _hear_stop() -> None:
    """Unblock the interrupt signal, which the notebook blocks while workers start; drop one that came meanwhile."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, handler)


async def _close_http(worker: Any) -> None:
    await worker
    worker.http_server.stop()
