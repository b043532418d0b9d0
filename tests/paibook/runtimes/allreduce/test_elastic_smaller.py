"""Training that goes on with fewer ranks, where there is no room for a lost rank's successor."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipyparallel
import pytest

from paibook.clusters import connect
from paibook.errors import PlanError, RankLost
from tests.paibook.runtimes.allreduce.conftest import Bench

TRAIN = """
import time
state = pai.state(total=0, step=0, mine=[rank], per_rank=["mine"])
given, size, before = state.mine, world_size, globals().get("mark")
for state.step in range(state.step, 60):
    state.commit()
    state.total += comm.allreduce(1)
    if state.step == 20: print("here", flush=True)
    time.sleep(0.01)
given, size, before, rank, state.total
"""


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Bench]:
    """A cluster of three ranks that cannot be replaced."""
    with ipyparallel.Cluster(n=3, profile_dir=str(tmp_path), controller_ip="127.0.0.1") as client:
        client.wait_for_engines(3, timeout=60, interactive=False)
        (connection_file,) = (tmp_path / "security").glob("*-client.json")
        cluster = connect(str(connection_file))
        yield Bench(cluster, tmp_path)
        cluster.close()


def kill_in_training(bench: Bench, rank: int, **options: Any) -> Any:
    """Run the training and kill a rank in the middle of it."""
    run, _context, here = bench.start(TRAIN, workers=0, options=options)
    pid = bench.cluster.status().ranks[rank].pid
    threading.Thread(target=lambda: here.wait(60) and os.kill(pid, signal.SIGKILL), daemon=True).start()
    return run()


@pytest.mark.slow
def test_a_group_goes_on_without_its_lost_rank(engines: Bench) -> None:
    engines.run("mark = rank", workers=3)
    answer = kill_in_training(engines, 1, min_workers=2)
    text = "".join(text for _, text in engines.said("stderr"))
    assert "rank 1 was killed by SIGKILL" in text or "rank 1: its engine" in text
    assert "there is no room for another; training goes on from commit" in text
    assert text.endswith("on 2 ranks\n")
    # Old rank 2 is rank 1 now, with its variables; the parts of old ranks 0 and 2 are rank 0's, that of 1 rank 1's.
    assert {rank: value[:4] for rank, value in answer.values.items()} == {
        0: ({0: [0], 2: [2]}, 2, 0, 0),
        1: ({1: [1]}, 2, 2, 1),
    }
    assert engines.run("mark, comm.allreduce(1)", workers=2).values == {0: (0, 2), 1: (2, 2)}
    with pytest.raises(RankLost, match="there is no room for another, and --min-workers is 2"):
        kill_in_training(engines, 0, min_workers=2)


def test_more_ranks_at_least_than_there_are_is_refused(inline: Bench) -> None:
    with pytest.raises(PlanError, match="--min-workers 3 is above -n 2"):
        inline.run("pass", options={"min_workers": 3})
