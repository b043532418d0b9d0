"""Trainings that take in more ranks when there is room: a Dask worker that joins, a place that becomes free."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster

from paibook.clusters import connect
from paibook.clusters.contract import Place
from paibook.errors import ClusterError, RunCancelled
from paibook.resources import Resources
from paibook.runtimes.allreduce import execution, growth, worker
from paibook.runtimes.allreduce.cell import REGROUP
from tests.paibook.runtimes.allreduce.conftest import Bench

SHARDS, STEPS = 4, 60

# What is drawn belongs to a shard, whoever works on it, so that the number of ranks changes nothing in the sum.
TRAIN = f"""
import time, numpy as np
mine = {{shard: np.random.default_rng(shard) for shard in range({SHARDS}) if shard % world_size == rank}}
state = pai.state(weights=np.zeros(50), step=0, sizes=[], mine=mine, per_rank=["mine"])
if state.sizes and state.sizes[-1] != world_size:  # what all ranks know: a newcomer was given nothing
    given = [parts for ranks in comm.allgather(state.mine) for parts in ranks.values()]
    state.mine = {{s: d for parts in given for s, d in parts.items() if s % world_size == rank}}
state.sizes.append(world_size)
begun, before = state.step, globals().get("mark")
for state.step in range(state.step, {STEPS}):
    state.commit()
    total = sum(np.round(1000 * draws.normal(size=50)) for draws in state.mine.values()) + np.zeros(50)
    comm.Allreduce(comm.IN_PLACE, total)
    state.weights += total
    if state.step == 5: print("here", flush=True)
    while state.step == {STEPS} - 5 and world_size < {SHARDS}: state.commit(step=state.step + 1); time.sleep(0.01)
begun, state.sizes, rank, before, state.weights.tolist()
"""


def undisturbed() -> list[float]:
    draws = [np.random.default_rng(shard) for shard in range(SHARDS)]
    weights = np.zeros(50)
    for _ in range(STEPS):
        weights += sum(np.round(1000 * draw.normal(size=50)) for draw in draws)
    return list(weights)


def notes(bench: Bench) -> str:
    return "".join(text for _, text in bench.said("stderr"))


@pytest.fixture
def dask() -> Iterator[LocalCluster]:
    """A real Dask cluster with room for two ranks."""
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None, host="127.0.0.1") as cluster:
        yield cluster


@pytest.fixture
def bench(dask: LocalCluster, tmp_path: Path) -> Iterator[Bench]:
    cluster = connect(dask.scheduler_address)
    yield Bench(cluster, tmp_path)
    cluster.close()


def wait_for_word(place: Place) -> bool:
    place.emit("stdout", "here")
    deadline = time.monotonic() + 20
    while not place.noticed(REGROUP) and time.monotonic() < deadline:
        time.sleep(0.01)
    return place.noticed(REGROUP)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for room all the time, and have newcomers ready at once."""
    monkeypatch.setattr(growth, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(worker, "get_ready", lambda place: None)


@pytest.mark.usefixtures("quick")
def test_newcomers_that_are_gone_again_leave_the_group_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = connect("inline")
    ranks = cluster.ranks(2)
    seeker = growth.Growth(cluster, Resources(workers=3), 3)
    with seeker.sought(ranks, lambda: True):
        assert [pending.result(30) for pending in ranks.apply(wait_for_word)] == [True, True]
    assert seeker.larger(ranks).size == 3

    def refuse(*args: object, **options: object) -> None:
        raise ClusterError("not enough room")

    monkeypatch.setattr(cluster, "ranks", refuse)
    assert seeker.larger(ranks) is ranks
    cluster.close()


@pytest.mark.usefixtures("quick")
def test_nobody_is_asked_to_leave_for_ranks_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = connect("inline")
    ranks = cluster.ranks(2)
    tried = threading.Semaphore(0)

    def refuse(*args: object, **options: object) -> None:
        tried.release()
        raise ClusterError("another notebook was faster")

    def wait_for_tries(place: Place) -> tuple[bool, bool]:
        return all(tried.acquire(timeout=20) for _ in range(3)), place.noticed(REGROUP)

    monkeypatch.setattr(cluster, "ranks", refuse)
    seeker = growth.Growth(cluster, Resources(workers=3), 3)
    with seeker.sought(ranks, lambda: True):
        assert ranks.apply(wait_for_tries, ranks=[0])[0].result(30) == (True, False)
    assert seeker.larger(ranks) is ranks
    cluster.close()


@pytest.mark.slow
def test_a_training_that_begins_on_two_ranks_goes_on_on_four(bench: Bench, dask: LocalCluster) -> None:
    with pytest.raises(ClusterError, match="not enough room for ranks"):
        bench.run("pass", workers=4, options={"min_workers": 3})
    bench.run("mark = rank", workers=2)
    run, _context, here = bench.start(TRAIN, workers=4, options={"min_workers": 2, "max_restarts": 0})
    joiner = threading.Thread(target=lambda: here.wait(60) and dask.scale(2), daemon=True)
    joiner.start()
    answer = run()
    joiner.join(30)
    text = notes(bench)
    assert "there is room for 2 of 4 ranks; the cell begins on those\n" in text
    assert "2 ranks joined; training goes on from commit " in text
    begun = answer.values[0][0]
    assert f"(step {begun}) on 4 ranks\n" in text
    # The old ranks keep their numbers and their variables, and no step was done twice or left out.
    assert {rank: value[:4] for rank, value in answer.values.items()} == {
        rank: (begun, [2, 4], rank, rank if rank < 2 else None) for rank in range(4)
    }
    assert all(value[4] == undisturbed() for value in answer.values.values())
    assert bench.run("comm.allreduce(1)", workers=4).values[0] == 4


# One epoch over 101 samples, two at a time. Each rank's progress is kept; whoever goes on has the rest dealt out.
EPOCH = """
import time
state = pai.state(before=[], progress=[], seen=[], sizes=[])
state.sizes.append(world_size)
if any(state.progress):
    state.before.append(state.progress)
state.progress = [0] * world_size
part = pai.shard(range(101)).indices(epoch=3, before=state.before).tolist()
for done in range(0, comm.allreduce(len(part), op=comm.MAX), 2):
    state.seen += sum(comm.allgather(part[done : done + 2]), [])
    state.progress = comm.allgather(min(done + 2, len(part)))
    state.commit()
    if done == 10: print("here", flush=True)
    while done == 30 and world_size < 2: state.commit(); time.sleep(0.01)
state.sizes, state.seen
"""


@pytest.mark.slow
def test_a_place_that_becomes_free_is_taken_and_no_sample_is_lost_or_doubled(
    bench: Bench, dask: LocalCluster, tmp_path: Path
) -> None:
    other = Bench(connect(dask.scheduler_address), tmp_path)
    other.run("pass", workers=1)
    run, _context, here = bench.start(EPOCH, workers=2, options={"min_workers": 1})
    leaver = threading.Thread(target=lambda: here.wait(60) and other.cluster.close(), daemon=True)
    leaver.start()
    try:
        answer = run()
    finally:
        leaver.join(30)
        other.cluster.close()
    assert "1 rank joined; training goes on from commit" in notes(bench)
    for sizes, seen in answer.values.values():
        assert sizes == [1, 2]
        assert sorted(seen) == list(range(101))


GROUP = """
import time, torch, torch.distributed as dist
dist.init_process_group("gloo")
state = pai.state(step=0, total=0, sizes=[])
state.sizes.append(world_size)
while state.step < 40:
    state.commit()
    while state.step == 30 and (len(state.sizes) == 1 or world_size < 4): state.commit(); time.sleep(0.01)
    ones = torch.ones(1)
    dist.all_reduce(ones)
    state.total += int(ones) * (12 // world_size)
    state.step += 1
    if state.step == 5: print("here", flush=True)
dist.destroy_process_group()
state.sizes, state.total
"""


@pytest.mark.slow
def test_a_worker_that_goes_and_one_that_comes(bench: Bench, dask: LocalCluster) -> None:
    dask.scale(2)
    dask.wait_for_workers(2)
    run, _context, here = bench.start(GROUP, workers=4, options={"min_workers": 2, "max_restarts": 4})

    def act() -> None:
        here.wait(60)
        nanny = dask.workers[1]
        nanny.auto_restart = False
        os.kill(nanny.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while "on 2 ranks" not in notes(bench) and time.monotonic() < deadline:
            time.sleep(0.02)
        dask.scale(3)

    actor = threading.Thread(target=act, daemon=True)
    actor.start()
    answer = run()
    actor.join(30)
    assert "there is no room for another; training goes on from commit" in notes(bench)
    assert "2 ranks joined; training goes on from commit" in notes(bench)
    for sizes, total in answer.values.values():
        assert (sizes[0], min(sizes), sizes[-1]) == (4, 2, 4)  # and 3 where the two ranks were not lost at once
        assert total == 480


@pytest.mark.slow
def test_stop_while_ranks_join(bench: Bench, dask: LocalCluster) -> None:
    run, context, here = bench.start(TRAIN, workers=4, options={"min_workers": 2})

    def act() -> None:
        here.wait(60)
        dask.scale(2)
        while len(bench.cluster.status().ranks) < 4:
            time.sleep(0.01)
        context.cancel()

    actor = threading.Thread(target=act, daemon=True)
    actor.start()
    with pytest.raises(RunCancelled):
        run()
    actor.join(30)
    assert bench.run("comm.allreduce(1)", workers=4).values[0] == 4


@pytest.mark.slow
def test_a_rank_that_does_not_leave_is_interrupted(
    bench: Bench, dask: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "LEAVE_SECONDS", 0.5)
    source = """
    import time
    state = pai.state(step=0)
    for state.step in range(state.step, 100_000):
        try:
            state.commit()
        except BaseException:
            if rank == 0: raise
            time.sleep(30)
        if state.step == 5: print("here", flush=True)
        if world_size == 3: break
        time.sleep(0.01)
    world_size
    """
    run, _context, here = bench.start(source, workers=3, options={"min_workers": 2})
    threading.Thread(target=lambda: here.wait(60) and dask.scale(2), daemon=True).start()
    assert run().values == dict.fromkeys(range(3), 3)
