"""Cells whose ranks share a host: their comm is shared memory by itself, and gloo where that cannot be."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paibook.clusters import connect
from paibook.comms.rendezvous import new_folder
from paibook.comms.segment import supported
from paibook.errors import RankLost, RunCancelled, RunError
from paibook.runtimes.allreduce import worlds
from paibook.settings import Settings
from tests.paibook.runtimes.allreduce.conftest import Bench

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


def test_kill_9_before_the_ranks_have_connected_is_a_lost_rank(embedded: Any) -> None:
    worlds.worlds_of(embedded.cluster).give_up()
    cell = "import os, signal\nif rank == 1: os.kill(os.getpid(), signal.SIGKILL)\ncomm.barrier()"
    with pytest.raises(RankLost, match="rank 1"):
        embedded.run(cell)
    assert embedded.run("comm.allreduce(1)").values == {0: 2, 1: 2}


def test_stop_before_the_ranks_have_connected(embedded: Any) -> None:
    embedded.run("x = rank + 5")
    worlds.worlds_of(embedded.cluster).give_up()
    cell = "import time\nprint('here', flush=True)\ntime.sleep(60) if rank else comm.barrier()"
    assert isinstance(embedded.cancelled(cell), RunCancelled)
    assert embedded.run("x, comm.allreduce(1)").values == {0: (5, 2), 1: (6, 2)}


def test_a_training_that_has_lost_a_rank_needs_no_torch(embedded: Any) -> None:
    cell = """
        import os, signal, sys
        state = pai.state(step=0)
        if state.step == 0 and rank == 1:
            state.commit(step=1)
            os.kill(os.getpid(), signal.SIGKILL)
        state.commit(step=1)
        state.step, comm.allreduce(1), "torch" in sys.modules
    """
    assert embedded.run(cell).values == {0: (1, 2, False), 1: (1, 2, False)}


def test_a_collective_in_a_thread_of_the_cell(embedded: Any) -> None:
    cell = """
        import threading
        found = []
        thread = threading.Thread(target=lambda: found.extend(comm.allreduce(rank) for _ in range(100)))
        thread.start(); thread.join()
        found == [1] * 100, comm.allreduce(1)
    """
    assert embedded.run(cell).values == {0: (True, 2), 1: (True, 2)}


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


@pytest.mark.parametrize("backend", ["shared", "gloo"])
def test_messages_alone_leave_nothing_when_the_cluster_ends(tmp_path: Path, backend: str) -> None:
    cluster = connect("embedded")
    try:
        cell = "comm.send(rank, 1 - rank)\ncomm.recv(), str(comm._connect.__self__._world.meeting.folder)"
        answer = Bench(cluster, tmp_path).run(cell, options={"backend": backend}).values
        folder = Path(answer[0][1])
        assert [value for value, _ in answer.values()] == [1, 0]
        assert list(folder.parent.glob(f"{folder.name}*"))
    finally:
        cluster.close()
    end = time.monotonic() + 10
    while folder.parent.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not folder.parent.exists()


def test_the_setting_chooses_gloo(embedded: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(worlds, "settings", lambda: Settings.read({"PAIBOOK_SHARED_MEMORY": "0"}))
    assert embedded.run(KIND).values == dict.fromkeys(range(2), ("TorchCommunicator", True))


def test_a_cell_chooses_its_backend(embedded: Any) -> None:
    cell = KIND.partition(", 'torch'")[0] + ", sum_"
    for backend, kind in [("gloo", "Torch"), ("shared", "SharedMemory"), ("auto", "SharedMemory")]:
        answer = embedded.run(cell, options={"backend": backend})
        assert answer.values == dict.fromkeys(range(2), (f"{kind}Communicator", 1))


def test_ranks_on_two_hosts_share_memory_on_each(embedded: Any, monkeypatch: Any) -> None:
    introduced, folders = worlds._introduced, [new_folder(), new_folder()]

    def seem_to_be_on_two_hosts(*arguments: Any) -> Any:
        return [
            replace(member, host=f"host {rank // 2}", folder=folders[rank // 2])
            for rank, member in enumerate(introduced(*arguments))
        ]

    monkeypatch.setattr(worlds, "_introduced", seem_to_be_on_two_hosts)
    cell = """
        import numpy as np, os
        gradient = np.full(1000, rank + 1.0)
        comm.Allreduce(comm.IN_PLACE, gradient)
        type(comm._connect()).__name__, gradient[-1], comm.bcast(rank, 3), os.environ["LOCAL_RANK"]
    """
    values = embedded.run(cell, workers=4).values
    assert values == {rank: ("HierarchicalCommunicator", 10.0, 3, str(rank % 2)) for rank in range(4)}
    stuck = "print('here', flush=True)\nimport time; time.sleep(60) if rank == 2 else comm.Barrier()"
    assert isinstance(embedded.cancelled(stuck, workers=4), RunCancelled)
    assert set(embedded.run("comm.allreduce(1)", workers=4).values.values()) == {4}
    embedded.run("1", workers=2)  # the world of four ends
    assert not [path for folder in folders for path in Path(folder).parent.glob(f"{Path(folder).name}*")]
