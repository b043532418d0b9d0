"""Cells on ranks that are processes of the embedded cluster: the same, and what only processes can do."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest

from paibook.errors import RankLost, RunCancelled, RunError, UserCodeError

pytestmark = pytest.mark.slow

GROUP = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
t = torch.full((2,), float(rank + 1))
dist.all_reduce(t)
t.tolist()
"""
SUMMED = {0: [3.0, 3.0], 1: [3.0, 3.0]}


def test_a_cell_without_comm_does_not_import_torch(embedded: Any) -> None:
    embedded.run("x = rank")
    assert embedded.run("import sys; x, 'torch' in sys.modules").values == {0: (0, False), 1: (1, False)}


def test_torchruns_environment(embedded: Any) -> None:
    names = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR"
    answer = embedded.run(f"import os\n[os.environ[name] for name in {names.split()}], 'OMP_NUM_THREADS' in os.environ")
    assert answer.values == {r: ([str(r), "2", str(r), "2", "127.0.0.1"], True) for r in range(2)}


def test_a_peer_in_a_collective_is_freed_by_an_error(embedded: Any) -> None:
    embedded.run("x = comm.allreduce(rank + 1)")
    started = time.monotonic()
    with pytest.raises(UserCodeError) as caught:
        embedded.run("y = 1\nif rank == 1: raise ValueError('boom')\ncomm.allreduce(1)\nimport time; time.sleep(60)")
    assert time.monotonic() - started < 10
    assert caught.value.where == "rank 1"
    assert ", line 2" in caught.value.traceback
    assert embedded.run("x, y, comm.allreduce(1)").values == {0: (3, 1, 2), 1: (3, 1, 2)}


def test_cancel_frees_a_collective_and_a_sleep(embedded: Any) -> None:
    embedded.run("x = rank")
    error = embedded.cancelled("import time\nprint('here')\ncomm.barrier() if rank == 0 else time.sleep(60)")
    assert isinstance(error, RunCancelled)
    assert embedded.run("x, comm.allreduce(1)").values == {0: (0, 2), 1: (1, 2)}


def test_stop_withdraws_a_cell_that_has_not_arrived(embedded: Any) -> None:
    embedded.run("x = rank")
    pids = [rank.pid for rank in embedded.cluster.status().ranks][:2]
    os.kill(pids[1], signal.SIGSTOP)  # a rank that reads nothing, as if a large variable were still on its way
    try:
        run, context, _here = embedded.start("x = 'spoilt'", variables={"big": np.zeros(1 << 18)})
        errors: list[BaseException] = []

        def catch() -> None:
            with pytest.raises(RunCancelled) as caught:
                run()
            errors.append(caught.value)

        running = threading.Thread(target=catch, daemon=True)
        running.start()
        threading.Timer(0.5, context.cancel).start()
        running.join(2.5)  # longer than a rank is given that runs the cell and does not react
        assert running.is_alive()
    finally:
        os.kill(pids[1], signal.SIGCONT)
    running.join(30)
    assert str(errors[0]) == "the run was stopped; the ranks kept their variables"
    assert [rank.pid for rank in embedded.cluster.status().ranks][:2] == pids
    assert "x" in embedded.run("list(globals())", workers=2).values[1]


def test_pushed_arrays_arrive_writable_and_as_they_were(embedded: Any) -> None:
    array = np.arange(300_000.0)
    answer = embedded.run("array[0] += 5; array[0], array.sum()", variables={"array": array})
    assert answer.values[1] == (5.0, array.sum() + 5)


def test_timeout(embedded: Any) -> None:
    with pytest.raises(RunError, match="rank 0 was still running"):
        embedded.run("if rank == 0: comm.recv(source=1)", timeout=0.5)
    assert embedded.run("comm.allreduce(1)").values == {0: 2, 1: 2}


def test_classes_of_the_cell_travel_and_come_back(embedded: Any) -> None:
    answer = embedded.run(
        """
        class Point:
            def __init__(self, x): self.x = x
        comm.alltoall([Point(10 * rank + to) for to in range(world_size)])
        """
    )
    assert [[point.x for point in answer.values[rank]] for rank in range(2)] == [[0, 10], [1, 11]]


def test_a_process_group_of_the_users_own(embedded: Any) -> None:
    assert embedded.run(GROUP).values == SUMMED
    assert embedded.run("dist.all_reduce(t); t.tolist(), comm.allreduce(1)").values[0] == ([6.0, 6.0], 2)
    with pytest.raises(UserCodeError, match="NameError"):
        embedded.run("comm.barrier(); a_typo_on_every_rank")
    assert embedded.run("dist.all_reduce(t); t.tolist()").values[0] == [12.0, 12.0]
    embedded.run("dist.destroy_process_group()")
    assert embedded.run(GROUP).values == SUMMED


def test_an_error_frees_a_peer_in_torchs_own_collective(embedded: Any) -> None:
    embedded.run("import torch.distributed as dist\nif dist.is_initialized(): dist.destroy_process_group()")
    embedded.run(GROUP + "\nkept = rank")
    with pytest.raises(UserCodeError, match="rank 1: ValueError: boom"):
        embedded.run("if rank == 0: dist.all_reduce(t)\nelse: raise ValueError('boom')")
    assert embedded.run("kept").values == {0: 0, 1: 1}
    assert embedded.run(GROUP).values == SUMMED


def test_stop_frees_init_process_group_itself(embedded: Any) -> None:
    embedded.run(
        "import torch.distributed as dist\nif dist.is_initialized(): dist.destroy_process_group()\nkept = rank"
    )
    error = embedded.cancelled("if rank == 0:\n    print('here', flush=True)\n    dist.init_process_group('gloo')")
    assert isinstance(error, RunCancelled)
    assert embedded.run("kept").values == {0: 0, 1: 1}
    assert embedded.run(GROUP).values == SUMMED
    embedded.run("dist.destroy_process_group()")


def test_a_rank_that_exits_is_lost_and_replaced(embedded: Any) -> None:
    embedded.run("x = rank; comm.barrier()")
    with pytest.raises(RankLost, match="rank 1") as caught:
        embedded.run("import os\nif rank == 1: os._exit(3)\ncomm.barrier()")
    assert (caught.value.role, caught.value.rank) == ("worker", 1)
    answer = embedded.run("globals().get('x'), comm.allreduce(1)")
    assert answer.values == {0: (0, 2), 1: (None, 2)}


def test_ddp_agrees_with_one_process(embedded: Any) -> None:
    training = """
    import torch
    def train(model, rows):
        x = torch.linspace(-1, 1, 64).reshape(32, 2)
        y = (x.sum(1, keepdim=True) > 0).float()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for step in range(20):
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
    def new_model():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    """
    parallel = """
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    dist.init_process_group("gloo")
    model = DistributedDataParallel(new_model())
    train(model, slice(rank, None, world_size))
    dist.destroy_process_group()
    weights = [p.detach().numpy() for p in model.parameters()]
    """
    alone = """
    model = new_model()
    train(model, slice(None))
    reference = [p.detach().numpy() for p in model.parameters()]
    """
    embedded.run(training)
    embedded.run(parallel)
    answer = embedded.run(alone, pull=("weights", "reference"))
    assert not answer.differs
    for ours, theirs in zip(answer.pulled["weights"], answer.pulled["reference"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


IMPORTING = """
import sys, threading, time

def watch():
    while getattr(sys.modules.get("{module}"), "__spec__", None) is None:
        time.sleep(0.001)
    print("all here", flush=True)

threading.Thread(target=watch, daemon=True).start()
kept = rank
import torch
time.sleep(60)
"""


@pytest.mark.parametrize("module", ["torch", "torch.optim"])
def test_stop_during_the_import_of_torch_leaves_whole_ranks(embedded: Any, module: str) -> None:
    embedded.cluster.restart()  # processes that have no torch yet
    error = embedded.cancelled(IMPORTING.replace("{module}", module))
    assert str(error) == "the run was stopped; the ranks kept their variables"
    assert all("all here" in embedded.printed(rank) for rank in range(2))
    answer = embedded.run(
        "import torch, torch.distributed as dist\nkept, float(torch.ones(2).sum()), comm.allreduce(1)"
    )
    assert answer.values == {0: (0, 2.0, 2), 1: (1, 2.0, 2)}
