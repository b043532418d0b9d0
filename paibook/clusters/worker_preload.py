"""Loaded by each worker process of the embedded cluster before it starts."""

from __future__ import annotations

import os
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave the notebook's process group: Stop signals the whole group, and must not end the workers."""
    if os.getpgrp() != os.getpid():
        os.setsid()
