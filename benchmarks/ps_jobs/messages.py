"""A parameter server over any transport that sends and receives arrays, in the plain style of MPI programs.

A request is three int64 (what is asked, the job's number, how many keys), the keys, and on a push the gradient; a pull
is answered with rows, a push with one int64. Both sides keep their buffers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ps_jobs import work

Move = Callable[[NDArray[Any]], None]  # send this array, or fill it
END, PULL, PUSH = range(3)
_DONE = np.zeros(1, np.int64)


class Buffers:
    """An array of each size, used again and again."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[int, ...], NDArray[np.float32]] = {}

    def of(self, *shape: int) -> NDArray[np.float32]:
        """Uninitialised the first time."""
        if shape not in self._arrays:
            self._arrays[shape] = np.empty(shape, np.float32)
        return self._arrays[shape]


def serve(send: Move, receive: Move, jobs: tuple[work.Job, ...] = work.JOBS) -> None:
    """Answer one worker until it ends."""
    models: dict[int, work.Model] = {}
    header, buffers = np.empty(3, np.int64), Buffers()
    while True:
        receive(header)
        asked, number, count = header.tolist()
        if asked == END:
            return
        model = models.get(number) or models.setdefault(number, work.Model(jobs[number]))
        keys = np.empty(count, np.int64) if count else None
        if keys is not None:
            receive(keys)
        if asked == PULL:
            send(model.pull(keys))
        else:
            gradient = buffers.of(count or jobs[number].rows, jobs[number].width)
            receive(gradient)
            model.push(keys, gradient)
            send(_DONE)


class RemoteTable:
    """A job's table on such a server."""

    def __init__(self, send: Move, receive: Move, job: work.Job, jobs: tuple[work.Job, ...] = work.JOBS) -> None:
        self._send, self._receive = send, receive
        self._job, self._number = job, jobs.index(job)
        self._buffers, self._done = Buffers(), np.empty(1, np.int64)

    def pull(self, keys: work.Keys | None) -> work.Array:
        """The weights, in a buffer that the next pull fills anew."""
        self._ask(PULL, keys)
        rows = self._buffers.of(self._job.rows if keys is None else len(keys), self._job.width)
        self._receive(rows)
        return rows

    def push(self, keys: work.Keys | None, gradient: work.Array) -> None:
        """See ``work.Table``."""
        self._ask(PUSH, keys)
        self._send(gradient)
        self._receive(self._done)

    def _ask(self, what: int, keys: work.Keys | None) -> None:
        self._send(np.array([what, self._number, 0 if keys is None else len(keys)]))
        if keys is not None:
            self._send(keys)


def measure(send: Move, receive: Move, jobs: tuple[work.Job, ...] = work.JOBS) -> work.Found:
    """The worker's side: time ``jobs``, then end the server."""
    result = work.found(lambda job: RemoteTable(send, receive, job, jobs), jobs)
    send(np.array([END, 0, 0]))
    return result
