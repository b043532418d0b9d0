"""The inline cluster leases cards for its process. A fake NVML library is loaded in place of the real one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paibook.clusters.inline import InlineCluster
from paibook.errors import NoGPU, PlanError
from paibook.gpus import LeaseBook
from paibook.resources import CardChoice
from paibook.settings import settings


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that says which cards there are: two."""
    file = tmp_path / "cards.json"
    file.write_text(json.dumps([{"uuid": "GPU-0"}, {"uuid": "GPU-1"}]))
    monkeypatch.setenv("FAKE_NVML", str(file))
    monkeypatch.setenv("PAIBOOK_LEASES", str(tmp_path / "leases"))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "fake_nvml"))
    for name in ("pynvml", "paibook.gpus.nvml"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("paibook.gpus.nvml", raising=False)
    settings.cache_clear()
    yield file
    settings.cache_clear()
    for name in ("pynvml", "paibook.gpus.nvml"):
        sys.modules.pop(name, None)


def test_threads_hold_cards_until_the_cluster_is_closed(cards: Path) -> None:
    cluster = InlineCluster()
    cluster.ranks(2, gpus=1)
    held = LeaseBook().held()
    assert [(lease.card, lease.holder.pid) for lease in held] == [("GPU-0", os.getpid()), ("GPU-1", os.getpid())]
    with pytest.raises(PlanError, match="held: by rank 0 of the inline cluster"):
        InlineCluster().ranks(1, gpus=1)
    cluster.ranks(2, gpus=1, cards=CardChoice(50, ("1", "1")))
    assert [(lease.card, lease.share) for lease in LeaseBook().held()] == [("GPU-1", 50), ("GPU-1", 50)]
    cluster.close()
    assert LeaseBook().held() == []


def test_no_card_is_refused_and_nothing_is_held(cards: Path) -> None:
    cards.write_text("[]")
    with pytest.raises(NoGPU, match="no GPU here: 1 rank with 1 each"):
        InlineCluster().ranks(1, gpus=1)
    assert LeaseBook().held() == []
