"""What a server's tables may hold beside what its workers make it hold."""

from __future__ import annotations

import numpy as np
import psutil

from paibook.comms.shared_channel import RING_BYTES
from paibook.runtimes.ps.budget import LEAST, MemoryBudget
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.messages import Storage
from tests.paibook.runtimes.ps.server_threads import serving


def test_what_connections_take_is_not_for_tables() -> None:
    budget = MemoryBudget(1 << 50)
    budget.join("t")
    free = budget.share()
    budget.reserve(0, 5 << 20)
    budget.reserve(1, 3 << 20)
    budget.reserve(1, 4 << 20)  # it holds more by now
    assert free - budget.share() == 9 << 20
    budget.reserve(2, 1 << 50)
    assert budget.share() == LEAST // 4


def test_a_servers_tables_make_room_for_the_keys_and_rings_of_its_workers() -> None:
    with serving(Consistency("asp"), 2, 1, Storage(memory=psutil.Process().memory_info().rss + (1 << 30))) as run:
        first, second = run.connect(0), run.connect(1)
        table = first.table("e", sparse=True, dtype="int64")
        table.wait(table.push([1], np.ones((1, 1), np.int64)))
        (budget,) = [server._budget for server in run.servers]
        assert budget is not None
        before, keys = budget.share(), np.arange(100_000)
        table.pull(keys)
        table.pull(keys)  # known by now
        assert before - budget.share() == keys.nbytes
        table.pull(keys + 1)
        assert before - budget.share() == 2 * keys.nbytes
        assert budget.limit is not None
        assert budget.limit - before > 2 * 2 * RING_BYTES
        for ps in (first, second):
            ps.close()
