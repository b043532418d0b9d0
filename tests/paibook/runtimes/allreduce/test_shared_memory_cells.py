"""Cells whose ranks share a host: their comm is shared memory by itself, and gloo where that cannot be."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from paibook.comms.segment import supported
from paibook.errors import RankLost, RunCancelled, RunError
from paibook.runtimes.allreduce import worlds
from paibook.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not supported(), reason="no shared memory with ordered stores here")]

KIND = "import sys\nsum_ = comm.allreduce(rank)\ntype(comm._connect()).__name__, 'torch' in sys.modules"


def test_comm_needs_no_torch(embedded: Any) -> None:
    assert embedded.run(KIND).values == dict.fromkeys(range(2), ("SharedMemoryCommunicator", False))


def test_kill_9_inside_a_collective_is_a_lost_rank(embedded: Any) -> None:
    embedded.run("x = rank; comm.barrier()")
    victim = embedded.cluster.status().ranks[1].pid
    run, _, here = embedded.start("if rank == 0: print('here', flush=True)\nwhile True: comm.barrier()")
    threading.Thread(target=lambda: here.wait(30) and os.kill(victim, signal.SIGKILL), daemon=True).start()
    with pytest.raises(RankLost, match="rank 1"):
        run()
    assert embedded.run("globals().get('x'), comm.allreduce(1)").values == {0: (0, 2), 1: (None, 2)}


def test_stop_inside_a_collective_keeps_the_ranks(embedded: Any) -> None:
    embedded.run("x = rank + 5")
    cell = "import numpy as np\na = np.zeros(1 << 20)\nprint('here', flush=True)\nwhile True: comm.Allreduce(a, a)"
    assert isinstance(embedded.cancelled(cell), RunCancelled)
    assert embedded.run("x, comm.allreduce(1)").values == {0: (5, 2), 1: (6, 2)}


def test_more_ranks_than_cores(embedded: Any) -> None:
    size = 2 * len(os.sched_getaffinity(0))
    began = time.monotonic()
    answer = embedded.run("for i in range(300): total = comm.allreduce(rank + i)\ntotal", workers=size)
    assert set(answer.values.values()) == {size * (size - 1) // 2 + 299 * size}
    assert time.monotonic() - began < 60


def test_a_disagreement_names_the_calls_and_the_ranks(embedded: Any) -> None:
    with pytest.raises(RunError, match="Barrier on rank 0 and Bcast of 3 float64 from root 0 on rank 1"):
        embedded.run("import numpy as np\ncomm.Barrier() if rank == 0 else comm.Bcast(np.zeros(3))")
    assert embedded.run("comm.allreduce(1)").values == {0: 2, 1: 2}


def test_the_setting_chooses_gloo(embedded: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(worlds, "settings", lambda: Settings.read({"PAIBOOK_SHARED_MEMORY": "0"}))
    worlds.worlds_of(embedded.cluster).give_up()
    assert embedded.run(KIND).values == dict.fromkeys(range(2), ("TorchCommunicator", True))
    worlds.worlds_of(embedded.cluster).give_up()
