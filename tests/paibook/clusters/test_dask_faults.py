"""What a Dask cluster does when parts of it stop, start again or leave things behind."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client, LocalCluster

from paibook.clusters import connect
from paibook.clusters.contract import Cluster, Place
from paibook.clusters.dask_cluster import DaskCluster
from paibook.errors import ClusterError, RankLost

WAIT = 60


def remember(place: Place, value: Any) -> int:
    place.namespace["kept"] = value
    return os.getpid()


def recall(place: Place) -> Any:
    return place.namespace.get("kept")


def worker_of(place: Place) -> int:
    return os.getppid()


def leave_a_child(place: Place, path: str) -> None:
    child = subprocess.Popen(["sleep", "7777"])
    Path(path).write_text(str(child.pid))
    os._exit(3)


def import_and_wait(folder: str) -> None:
    sys.path.insert(0, folder)
    try:
        importlib.import_module("slow_to_import")
        for _ in range(100 * WAIT):
            time.sleep(0.01)
    except BaseException:
        Path(folder, "stopped").touch()
        raise
    finally:
        sys.path.remove(folder)


def results(pending: list[Any]) -> list[Any]:
    return [p.result(WAIT) for p in pending]


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WAIT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def embedded() -> Iterator[Cluster]:
    cluster = connect("embedded")
    yield cluster
    cluster.close()


@pytest.mark.slow
class TestEmbedded:
    def test_what_a_rank_started_ends_with_it(self, embedded: Cluster, tmp_path: Path) -> None:
        file = tmp_path / "pid"
        error = embedded.ranks(1).apply(leave_a_child, str(file))[0].exception(WAIT)
        assert isinstance(error, RankLost)
        assert eventually(lambda: gone(int(file.read_text())))

    def test_a_rank_that_was_lost_between_calls_is_reported_once_when_it_is_replaced(self, embedded: Cluster) -> None:
        ranks = embedded.ranks(2)
        assert [loss.rank for loss in ranks.take_losses()] == [0]  # the one of the test above
        pids = results(ranks.apply(remember, "x"))
        os.kill(pids[1], signal.SIGKILL)
        assert eventually(lambda: embedded.status().ranks[1].state == "lost")
        assert [str(loss).split(" (")[0] for loss in embedded.ranks(2).take_losses()] == [
            "worker rank 1 was lost: its process was killed by SIGKILL"
        ]
        assert embedded.ranks(2).take_losses() == []

    def test_scaling_down_spares_ranks_and_says_which_are_lost(self, embedded: Cluster) -> None:
        embedded.restart()
        parents = results(embedded.ranks(1).apply(worker_of))
        embedded.scale(3)
        embedded.scale(1)
        assert embedded.status().workers == 1
        assert results(embedded.ranks(1).apply(worker_of)) == parents
        embedded.scale(2)
        assert len(set(results(embedded.ranks(2).apply(worker_of)))) == 2
        embedded.scale(1)
        assert sorted(rank.state for rank in embedded.status().ranks) == ["idle", "lost"]
        (loss,) = embedded.ranks(2).take_losses()
        assert "was retired by scaling down" in loss.cause
        embedded.scale(2)

    def test_workers_that_die_again_and_again_are_not_given_up(self, embedded: Any) -> None:
        """Dask would close a nanny whose worker is not there when it looks."""
        workers = embedded.status().workers
        nannies = embedded._client.cluster.workers
        with dask.config.set({"distributed.deploy.lost-worker-timeout": "0.2s"}):
            for nanny in list(nannies.values()):
                os.kill(nanny.pid, signal.SIGKILL)
            assert eventually(lambda: embedded.status().workers < workers)
            assert eventually(lambda: embedded.status().workers == workers)
        assert embedded.tasks().submit(os.getpid).result(WAIT) in [nanny.pid for nanny in nannies.values()]

    def test_a_worker_whose_nanny_gave_up_is_replaced(self, embedded: Any) -> None:
        cluster = embedded._client.cluster
        before = set(cluster.workers.values())
        cluster.sync(next(iter(before)).close)
        assert eventually(lambda: len(set(cluster.workers.values()) - before) == 1)
        assert eventually(lambda: embedded.status().workers == len(before))

    def test_a_task_that_is_stopped_finishes_the_import_it_is_at(self, embedded: Any, tmp_path: Path) -> None:
        """Half imported, a library of C extensions could never be imported again in that process."""
        (tmp_path / "slow_to_import.py").write_text(
            "import pathlib, time\n"
            "folder = pathlib.Path(__file__).parent\n"
            "(folder / 'begun').touch()\n"
            "for _ in range(50):\n    time.sleep(0.01)\n"
            "(folder / 'imported').touch()\n"
        )
        pending = embedded.tasks().submit(import_and_wait, str(tmp_path))
        assert eventually((tmp_path / "begun").exists)
        embedded.tasks().release([pending])
        assert eventually((tmp_path / "imported").exists)
        assert eventually((tmp_path / "stopped").exists)

    def test_a_stopped_worker_is_named_and_restart_gives_fresh_processes(self, embedded: Cluster) -> None:
        before = results(embedded.ranks(2).apply(worker_of))
        os.kill(before[0], signal.SIGSTOP)
        with pytest.raises(ClusterError, match=r"Dask worker tls://127\.0\.0\.1:\d+ did not answer"):
            embedded.status()
        embedded.restart()
        assert all(map(gone, before))
        after = results(embedded.ranks(2).apply(worker_of))
        assert not set(after) & set(before)
        assert embedded.status().free > 0


def start_dask(port: int, folder: Path) -> list[subprocess.Popen[bytes]]:
    address = f"tcp://127.0.0.1:{port}"
    run = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = [*run, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "2", "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    return [subprocess.Popen(command, **quiet) for command in (scheduler, [*worker, "--no-nanny"])]  # type: ignore[call-overload]


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_scheduler_that_restarts_on_its_address_is_used_again(tmp_path: Path, free_port: int) -> None:
    processes = start_dask(free_port, tmp_path)
    cluster = connect(f"tcp://127.0.0.1:{free_port}")
    try:
        pids = results(cluster.ranks(1).apply(remember, "old"))
        stop(processes)
        assert all(eventually(lambda pid=pid: gone(pid)) for pid in pids)  # type: ignore[misc]
        processes = start_dask(free_port, tmp_path)
        ranks = cluster.ranks(1)
        assert results(ranks.apply(recall)) == [None]
        assert cluster.tasks().submit(len, "abc").result(WAIT) == 3
        cluster.restart()
        stop(processes)
        cluster.close()  # a scheduler that is gone does not hinder it
        processes = start_dask(free_port, tmp_path)
        assert results(cluster.ranks(1).apply(recall)) == [None]
    finally:
        cluster.close()
        stop(processes)


class TestObjects:
    @pytest.fixture
    def in_this_process(self) -> Iterator[LocalCluster]:
        nowhere = {"dashboard_address": "127.0.0.1:0"}
        with LocalCluster(
            n_workers=0, processes=False, protocol="inproc://", dashboard_address=None, scheduler_kwargs=nowhere
        ) as cluster:
            yield cluster

    def test_a_client_that_we_made_is_closed(self, in_this_process: LocalCluster) -> None:
        cluster = DaskCluster.of_object(in_this_process)
        cluster.start()
        client = cluster._client
        assert client is not None
        cluster.close()
        assert client.status == "closed"
        assert in_this_process.status.name == "running"

    def test_a_client_that_was_closed_since_is_refused(self, in_this_process: LocalCluster) -> None:
        client = Client(in_this_process, set_as_default=False)
        cluster = DaskCluster.of_object(client)
        cluster.start()
        client.close()
        with pytest.raises(ClusterError, match="is closed; attach one that is connected"):
            cluster.status()

    def test_an_asynchronous_client_is_refused_by_name(self) -> None:
        import asyncio

        async def attach() -> None:
            options = {"processes": False, "n_workers": 0, "dashboard_address": None}
            async with Client(asynchronous=True, set_as_default=False, **options) as client:
                with pytest.raises(ClusterError, match="the Client is asynchronous"):
                    connect(client)

        asyncio.run(attach())


STOPPED_START = """
import os, signal, threading, time
import psutil
from paibook.clusters import connect

cluster = connect("embedded")
def stop():
    me = psutil.Process()
    while len(me.children(recursive=True)) < 3:  # the controller, and what starts the workers
        time.sleep(0.01)
    os.killpg(os.getpgrp(), signal.SIGINT)

threading.Thread(target=stop).start()
try:
    cluster.start()
except KeyboardInterrupt:
    print("stopped")
ranks = cluster.ranks(2)
print([p.result(60) for p in ranks.apply(lambda place: place.rank)])
controllers = [p for p in psutil.Process().children() if "paibook.clusters.controller" in p.cmdline()]
print(len(controllers), "controller")
cluster.close()
left = lambda: [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
deadline = time.monotonic() + 30
while left() and time.monotonic() < deadline:
    time.sleep(0.05)
print(len(left()), "left")
"""


@pytest.mark.slow
def test_stop_while_the_cluster_starts_leaves_nothing_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_START], capture_output=True, text=True, timeout=WAIT, start_new_session=True
    )
    assert done.stdout.splitlines() == ["stopped", "[0, 1]", "1 controller", "0 left"]
    assert done.stderr == ""
