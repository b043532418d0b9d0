"""Tasks of the inline cluster: in order, in a thread that can be freed."""

from __future__ import annotations

import threading
import time

import pytest

from paibook.clusters.inline import InlineTasks
from paibook.errors import RunCancelled

WAIT = 20


def test_release_ends_the_task_that_runs_and_those_that_wait() -> None:
    tasks = InlineTasks(1)
    inside = threading.Event()
    threads = []

    def spin() -> None:
        threads.append(threading.current_thread())
        inside.set()
        while True:
            pass

    pending = [tasks.submit(spin), tasks.submit(len, "never")]
    assert inside.wait(WAIT)
    tasks.release(pending)
    assert [type(p.exception(WAIT)) for p in pending] == [RunCancelled] * 2
    threads[0].join(WAIT)
    assert not threads[0].is_alive()
    assert tasks.submit(len, "abc").result(WAIT) == 3
    tasks.close()


def test_a_task_that_blocks_does_not_hold_up_the_next_ones() -> None:
    tasks = InlineTasks(1)
    inside, go_on = threading.Event(), threading.Event()

    def block() -> None:
        inside.set()
        go_on.wait(WAIT)

    blocked, other = tasks.submit(block), tasks.submit(len, "other")
    assert inside.wait(WAIT)
    tasks.release([blocked])
    assert other.result(WAIT) == 5
    go_on.set()
    tasks.close()


def test_release_of_what_is_done_changes_nothing() -> None:
    tasks = InlineTasks(1)
    done = tasks.submit(len, "abc")
    assert done.result(WAIT) == 3
    tasks.release([done])
    assert done.result() == 3
    tasks.close()


def test_an_interrupt_that_a_task_raises_is_its_outcome() -> None:
    tasks = InlineTasks(1)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tasks.submit(interrupt).result(WAIT)
    assert tasks.submit(time.monotonic).result(WAIT) > 0
    tasks.close()
