"""A worker's links when servers die or refuse: nothing waits for ever, and nothing is counted that is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from paibook.comms.shared_channel import RING_BYTES
from paibook.errors import RunError, TableError
from paibook.runtimes.ps import links as links_module
from paibook.runtimes.ps.consistency import Consistency
from tests.paibook.runtimes.ps.server_threads import serving

ROWS = 3 * RING_BYTES // 4  # float32: each of two servers answers with more than a ring holds


def within(seconds: float, act: Callable[[], Any]) -> Any:
    """What ``act`` gives, in another thread; fails where that takes too long."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(act()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits for ever"
    return found[0]


def test_a_server_dies_while_both_send_answers_that_nobody_reads() -> None:
    with serving(Consistency("asp"), 1, 2, replicas=1) as run:
        ps = run.connect(0)
        w = ps.table("w", shape=ROWS)
        one = np.ones(ROWS, np.float32)
        w.wait(w.push(one))
        ticket, push = w.prefetch(), w.push(one)
        run.end_server(0)
        assert within(30, lambda: (w.wait(push), ticket.result())[1]).min() >= 1
        assert within(30, w.pull).tolist()[:2] == [2, 2]
        ps.close()


def test_what_was_refused_is_kept_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "WINDOW_BYTES", 4000)
    with serving(Consistency("asp"), 1, 2, replicas=1) as run:
        ps = run.connect(0)
        w = ps.table("w", shape=200, dtype="float64")
        for service in run._services[1:]:
            for partition in service.partitions:  # type: ignore[attr-defined]
                monkeypatch.setattr(partition, "push", refuse)
        for _ in range(8):
            assert "not today" in within(10, lambda: message(lambda: w.wait(w.push(np.ones(200)))))
        assert ps._links._held == 0
        ps.close()


def message(act: Callable[[], Any]) -> str:
    """What a call is refused with."""
    try:
        act()
    except TableError as error:
        return str(error)
    return ""


def refuse(*arguments: Any) -> None:
    raise TableError("not today")


def test_a_push_of_a_process_that_has_not_begun_is_an_error() -> None:
    with serving(Consistency("asp"), 1, 1) as run:
        ps = run.connect(0)
        w = ps.table("w", shape=2)
        partition = run._services[1].partitions[0]  # type: ignore[attr-defined]
        ps.clock()
        with pytest.raises(RunError, match="before it said at which clock"):
            partition.push(0, (0, 3), links_module.Header(0, sequence=1), None, np.ones(2, np.float32), print)
        assert w.pull().tolist() == [0, 0]
        ps.close()
