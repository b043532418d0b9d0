"""What ranks call is counted and described alike, however its arguments are written."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from paibook.comms.calls import Call, CallLog, watched
from paibook.comms.operators import IN_PLACE, MAX, SUM

A, WHOLE = np.ones(4, "f4"), np.ones(8, "f4")


def called(name: str, *args: Any, **options: Any) -> Call:
    log = CallLog()
    log.reset(2)
    log.logged(name, lambda: lambda *args, **options: None)(*args, **options)
    return log.recent[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (called("Allreduce", A, A), called("Allreduce", IN_PLACE, A, op=SUM)),
        (called("Allreduce", sendbuf=A, recvbuf=A, op=MAX), called("Allreduce", A, A, MAX)),
        (called("Reduce", A, None, SUM, 1), called("Reduce", IN_PLACE, A, root=1)),
        (called("Gather", A, None), called("Gather", IN_PLACE, WHOLE)),
        (called("Allgather", A, WHOLE), called("Allgather", IN_PLACE, WHOLE)),
        (called("Scatter", None, A), called("Scatter", WHOLE, IN_PLACE)),
        (called("Bcast", A), called("Bcast", buf=A, root=np.int64(0))),
        (called("Bcast", A), called("Bcast", memoryview(A))),
        (called("bcast", "x", 1), called("bcast", None, root=1)),
        (called("allreduce", 1), called("allreduce", 2, SUM)),
        (called("barrier"), called("Barrier")),
        (called("Allgatherv", A, [WHOLE, (1, 7)]), called("Allgatherv", WHOLE, [WHOLE, (1, 7)])),
    ],
)
def test_calls_that_belong_together(one: Call, other: Call) -> None:
    assert one.matches(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (called("Allreduce", A, A), called("Allreduce", A, A, MAX)),
        (called("Allreduce", A, A), called("Allreduce", WHOLE, WHOLE)),
        (called("Allreduce", A, A), called("Allreduce", A.view("i4"), A.view("i4"))),
        (called("Bcast", A), called("Bcast", A, 1)),
        (called("Bcast", A), called("bcast", A)),
        (called("Barrier"), called("Bcast", A)),
        (called("allreduce", 1, MAX), called("allreduce", 1)),
    ],
)
def test_calls_that_do_not(one: Call, other: Call) -> None:
    assert not one.matches(other)


def test_calls_in_words() -> None:
    assert called("Allreduce", A, A).described() == "Allreduce of 4 float32 (SUM)"
    assert called("bcast", "x", 1).described() == "bcast from root 1"
    assert called("Reduce", A, A).described() == "Reduce of 4 float32 (SUM) to root 0"
    assert str(called("barrier")) == "barrier #1"


def test_digests_agree_beyond_what_is_remembered() -> None:
    logs = [CallLog(), CallLog(), CallLog()]
    for number, log in enumerate(logs):
        for step in range(100):
            log.logged("Bcast", lambda: lambda buf: None)(WHOLE if (number, step) == (2, 5) else A)
    assert logs[0].digest == logs[1].digest != logs[2].digest
    assert logs[0].recent == logs[2].recent


def test_an_operation_that_lasts_is_told_once() -> None:
    log, told = CallLog(), []

    def tell() -> None:
        told.append(log.now)

    def slow() -> None:
        end = time.monotonic() + 10
        while not told and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.6)

    with watched(log, tell):
        log.logged("Barrier", lambda: slow)()
    assert [call.name for call in told] == ["Barrier"]
    assert log.now is None
    assert threading.active_count() < 50
