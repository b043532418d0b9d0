"""Garbage: collected rarely while a task builds millions of tuples and lists that are all alive; at its end, what Arrow
keeps for later is given back."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow

RARELY = (200_000, 50, 100)  # by default Python looks through what is new every 700 objects

_lock = threading.Lock()
_tasks = 0
_usual = gc.get_threshold()


@contextmanager
def rare_collection() -> Iterator[None]:
    """Collect cyclic garbage rarely, but still, until the last task of this process has left."""
    global _tasks, _usual
    with _lock:
        if _tasks == 0:
            _usual = gc.get_threshold()
            gc.set_threshold(*RARELY)
        _tasks += 1
    try:
        yield
    finally:
        with _lock:
            _tasks -= 1
            if _tasks == 0:
                gc.set_threshold(*_usual)
                pyarrow.default_memory_pool().release_unused()
