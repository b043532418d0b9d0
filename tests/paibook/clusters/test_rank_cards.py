"""Real ranks that lease cards. A fake NVML library is loaded in place of the real one, in every process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paibook.clusters import connect
from paibook.clusters.contract import Cluster, Ranks
from paibook.errors import NoGPU, PlanError
from paibook.gpus import Device, Holder, LeaseBook
from paibook.resources import CardChoice, Resources
from paibook.runtimes.workers import fallback_note, workers_on
from paibook.settings import settings

FAKE = Path(__file__).parents[2] / "fake_nvml"
CARDS = [Device(i, "NVIDIA H200", 140 * 2**30, f"GPU-{i}") for i in range(2)]


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that says which cards there are: two."""
    folder = tmp_path_factory.mktemp("cards")
    file = folder / "cards.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(FAKE), os.environ.get("PYTHONPATH", "")]))
        patch.syspath_prepend(str(FAKE))  # Dask's workers get this process's own
        patch.setenv("FAKE_NVML", str(file))
        patch.setenv("PAIBOOK_LEASES", str(folder / "leases"))
        patch.setenv("PAIBOOK_WORKERS", "2")
        settings.cache_clear()
        yield file
    settings.cache_clear()


@pytest.fixture
def cluster(cards: Path) -> Iterator[Cluster]:
    cards.write_text(json.dumps([{"uuid": card.uuid} for card in CARDS]))
    cluster = connect("embedded")
    yield cluster
    cluster.close()


def visible(place: Any) -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def seen(ranks: Ranks) -> list[str]:
    return [pending.result(30) for pending in ranks.apply(visible)]


def test_ranks_hold_their_cards_until_they_end(cluster: Cluster) -> None:
    assert not cluster.started()
    assert sorted(seen(cluster.ranks(2, gpus=1))) == ["GPU-0", "GPU-1"]
    book = LeaseBook()
    pids = {status.pid for status in cluster.status().ranks}
    assert [member.limit > 0 for member in cluster.status().members] == [True, True]
    assert {lease.holder.pid for lease in book.held()} == pids
    with pytest.raises(PlanError, match="held by rank worker"):
        book.take(CARDS, Holder.of("job", "another"), 1)

    # Other cards are chosen: the ranks are replaced, and share one.
    assert seen(cluster.ranks(2, gpus=1, cards=CardChoice(50, ("1", "1")))) == ["GPU-1", "GPU-1"]
    assert [status.cards for status in cluster.status().ranks if status.state != "lost"] == [("1",), ("1",)]
    assert [lease.share for lease in book.held()] == [50, 50]
    cluster.close()
    _wait_until_free(book)


def test_a_card_that_a_job_holds_is_refused_with_the_reason(cluster: Cluster) -> None:
    book = LeaseBook()
    (lease,) = book.take(CARDS[:1], Holder.of("job", "nightly"))
    try:
        with pytest.raises(PlanError, match=r"held: by job nightly \(process \d+\). Of those left: 1 GPU here"):
            cluster.ranks(2, gpus=1)
        assert seen(cluster.ranks(1, gpus=1)) == ["GPU-1"]
    finally:
        book.give_back(lease.id)


def test_where_there_is_no_card_the_cpu_is_used_if_that_is_allowed(cluster: Cluster, cards: Path) -> None:
    cards.write_text("[]")
    with pytest.raises(NoGPU, match="no GPU here: 2 ranks with 1 each"):
        workers_on(cluster, Resources(2, gpus_per_worker=1), 2)
    asked = Resources(2, gpus_per_worker=1, cpu_fallback=True)
    ranks = workers_on(cluster, asked, 2)
    assert seen(ranks) == ["", ""]
    assert fallback_note(ranks, asked) == "no GPU here: the ranks run on the CPU, as --cpu-fallback allows\n"


def _wait_until_free(book: LeaseBook) -> None:
    deadline = time.monotonic() + 10
    while book.held() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert book.held() == []
