"""Real processes are killed at random while they train, and every push counts once.

A longer run by hand: ``PAIBOOK_FAULTS_SECONDS=120 PAIBOOK_FAULTS_SEED=7 pytest`` with this file.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paibook.clusters.contract import Cluster, Event
from paibook.runtimes.ps.views import View

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("PAIBOOK_FAULTS_SECONDS", "4"))
SEED = int(os.environ.get("PAIBOOK_FAULTS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)

# Every push has a row of its own, so that one too many and one too few do not make up for each other.
CELL = """
    import time

    def update(weight, grad):
        return weight + grad

    def train(ps):
        dense = ps.table("dense", shape=world_size * clocks, dtype="int64")
        sparse = ps.table("sparse", sparse=True, dtype="int64")
        whole = ps.table("whole", shape=(7, 3), dtype="int64")
        longest, last = 0.0, time.monotonic()
        for clock in ps.clocks(clocks):
            whole.pull()
            key = rank * clocks + clock
            dense.push([key, key], [1, 1])
            sparse.push([key * 10**9], [[1]])
            whole.push([[1] * 3] * 7)
            if clock == 5:
                print("running", flush=True)
            time.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        return longest
"""


class Killer:
    """Kills processes of a run at random moments, in a thread; a server only while every partition has its copies."""

    def __init__(self, cluster: Cluster, log: Path, roles: list[str], seed: int) -> None:
        self.killed: dict[str, list[int]] = {role: [] for role in roles}
        self._cluster, self._log, self._roles = cluster, log, roles
        self._random = random.Random(seed)
        self._running, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def on_event(self, event: Event) -> None:
        if event.kind == "stdout" and "running" in event.data:
            self._running.set()

    def stop(self) -> None:
        self._over.set()
        self._running.set()
        self._thread.join()

    def _run(self) -> None:
        self._running.wait()
        end = time.monotonic() + 2 * SECONDS
        while not self._over.wait(self._random.uniform(0.1, 1.0)) and time.monotonic() < end:
            role = self._random.choice(self._roles)
            alive = [r for r in self._cluster.status().ranks if r.role == role and r.state == "busy"]
            if alive and (role != "server" or self._copies_are_whole()) and not self._over.is_set():
                chosen = self._random.choice(alive)
                os.kill(chosen.pid, signal.SIGKILL)
                self.killed[role].append(chosen.rank)

    def _copies_are_whole(self) -> bool:
        entries = [
            json.loads(line) for line in self._log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")
        ]
        view = [View.from_wire(entry["view"]) for entry in entries if entry["kind"] == "view"][-1]
        replaced = sum(address.incarnation for address in view.addresses.values())
        whole = all(view.backups) and not any(server is not None for server in view.building)
        return whole and replaced == len(self.killed["server"])  # else it has not heard of the last death yet


def counted(real: Any, roles: list[str], consistency: str, servers: int, seed: int) -> Killer:
    """Train with faults; every push must have counted once, but for those that a worker that died sent again."""
    clocks = int(SECONDS * 30)
    killer = Killer(real.cluster, real.directory / "coordinator.jsonl", roles, seed)
    options: dict[str, Any] = {"consistency": consistency, "staleness": 2, "max_restarts": 1000}
    try:
        context = real.context(killer.on_event, clocks=clocks)
        result = real.run(CELL, context, workers=2, servers=servers, timeout=SECONDS * 20 + 60, **options)
    finally:
        killer.stop()
    told = f"seed {seed}: killed {killer.killed}; the longest clock took {max(result.returned):.2f} s"
    print(told)
    dense, (keys, sparse) = result.tables["dense"], result.tables["sparse"]
    again = [0 if consistency == "bsp" else killer.killed.get("worker", []).count(rank) for rank in range(2)]
    most = np.repeat(np.array(again) + 1, clocks)
    assert np.array_equal(keys, np.arange(2 * clocks) * 10**9), told
    assert (dense >= 2).all(), told
    assert (dense <= 2 * most).all(), told
    assert (sparse[:, 0] >= 1).all(), told
    assert (sparse[:, 0] <= most).all(), told
    assert (result.tables["whole"] == result.tables["whole"][0, 0]).all(), told
    assert 2 * clocks <= result.tables["whole"][0, 0] <= 2 * clocks + sum(again), told
    assert sum(map(len, killer.killed.values())) > 0, told
    return killer


@pytest.mark.parametrize(
    ("consistency", "roles", "servers"),
    [
        ("bsp", ["server", "worker", "coordinator"], 2),
        ("ssp", ["server", "coordinator"], 3),
        ("asp", ["server", "worker"], 2),
    ],
)
def test_every_push_counts_once_whoever_is_killed(real: Any, consistency: str, roles: list[str], servers: int) -> None:
    counted(real, roles, consistency, servers, SEED)
