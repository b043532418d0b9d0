"""What is special about an ipyparallel cluster: its engines are not ours to replace."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import ipyparallel
import pytest

from paibook.clusters import connect
from paibook.clusters.contract import Cluster, Place
from paibook.errors import ClusterError, PlanError, RankLost

pytestmark = pytest.mark.slow
WAIT = 40


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ipyparallel.Cluster(n=3, profile_dir=str(tmp_path), controller_ip="127.0.0.1") as client:
        client.wait_for_engines(3, timeout=60, interactive=False)
        (connection_file,) = (tmp_path / "security").glob("*-client.json")
        made = connect(str(connection_file))
        made.start()
        yield made
        made.close()


def process_id(place: Place) -> int:
    return os.getpid()


def end(place: Place) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_lost_rank_is_replaced_by_a_free_engine_while_there_is_one(cluster: Cluster) -> None:
    before = [pending.result(WAIT) for pending in cluster.ranks(2).apply(process_id)]
    (lost,) = cluster.ranks(2).apply(end, ranks=[1])
    assert isinstance(lost.exception(WAIT), RankLost)
    after = [pending.result(WAIT) for pending in cluster.ranks(2).apply(process_id)]
    assert after[0] == before[0]
    assert after[1] != before[1]
    with pytest.raises(ClusterError, match="3 asked for"):
        cluster.ranks(3)


def test_kill_ends_an_engine(cluster: Cluster) -> None:
    ranks = cluster.ranks(1)
    (pid,) = [pending.result(WAIT) for pending in ranks.apply(process_id)]
    ranks.kill()
    assert [pending.result(WAIT) for pending in cluster.ranks(1).apply(process_id)] != [pid]


def test_its_cards_are_not_ours_to_give(cluster: Cluster) -> None:
    with pytest.raises(PlanError, match="CUDA_VISIBLE_DEVICES"):
        cluster.ranks(1, gpus=1)
    with pytest.raises(PlanError, match="--placement pack cannot be kept on an ipyparallel cluster"):
        cluster.ranks(1, placement="pack")


def test_a_profile_without_a_controller_is_named() -> None:
    with pytest.raises(ClusterError, match="ipyparallel:no-such-profile"):
        connect("ipyparallel:no-such-profile").start()
