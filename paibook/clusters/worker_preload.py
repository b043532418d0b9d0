"""Loaded by each worker process of the embedded cluster before it starts."""

from __future__ import annotations

import os
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave the notebook's process group, and close the worker's plain HTTP port."""
    # Stop signals the notebook's whole process group, and must not end the workers.
    if os.getpgrp() != os.getpid():
        os.setsid()
    # Preloads run before the worker starts its HTTP server.
    worker.loop.add_callback(_close_http, worker)


async def _close_http(worker: Any) -> None:
    await worker
    worker.http_server.stop()
