"""A group that goes on without the ranks it has lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from paibook.clusters import connect
from paibook.clusters.contract import Cluster, Place
from paibook.errors import ClusterError, RankLost

WAIT = 40


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = connect("embedded")
    yield made
    made.close()


def remember(place: Place) -> None:
    place.namespace["was"] = place.rank


def recall(place: Place) -> tuple[int, int | None]:
    return place.rank, place.namespace.get("was")


def end(place: Place) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_the_ranks_that_live_move_up_and_keep_their_variables(cluster: Cluster) -> None:
    ranks = cluster.ranks(3)
    for pending in ranks.apply(remember):
        pending.result(WAIT)
    (lost,) = ranks.apply(end, ranks=[0])
    with pytest.raises(RankLost):
        lost.result(WAIT)
    left = cluster.without_lost(3)
    assert [pending.result(WAIT) for pending in left.apply(recall)] == [(0, 1), (1, 2)]
    assert cluster.without_lost(1).size == 1
    again = cluster.ranks(3)
    assert [pending.result(WAIT) for pending in again.apply(recall)] == [(0, 1), (1, 2), (2, None)]
    assert again.take_losses() == []


def test_threads_are_not_left_out() -> None:
    with pytest.raises(ClusterError, match="inline cannot go on with fewer ranks"):
        connect("inline").without_lost(2)
