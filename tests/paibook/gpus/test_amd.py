"""What is read from AMD SMI. A fake library is loaded in place of amdsmi: no card of AMD's was ever asked."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import paibook.gpus
from paibook.gpus import CardProcess, Device, absent, discover, discovery, environment_of, readings

FAKE = Path(__file__).parents[2] / "fake_amdsmi" / "amdsmi.py"
GIB = 2**30


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "paibook.gpus.amd", raising=False)
    monkeypatch.delattr(paibook.gpus, "amd", raising=False)


@pytest.fixture
def amd_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Load a fake amdsmi as where AMD's driver is; the function given says which cards there are from now on."""
    spec = importlib.util.spec_from_file_location("amdsmi", FAKE)
    assert spec is not None
    assert spec.loader is not None
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    monkeypatch.setitem(sys.modules, "amdsmi", fake)
    monkeypatch.setattr(discovery, "AMD_DRIVER", tmp_path)
    forget(monkeypatch)
    file = tmp_path / "amd.json"

    def say(*cards: dict[str, Any]) -> None:
        file.write_text(json.dumps(cards))
        monkeypatch.setenv("FAKE_AMDSMI", str(file))

    return say


def test_cards_come_after_nvidias_with_memory_load_and_processes(
    fake_cards: Callable[..., None], amd_cards: Callable[..., None]
) -> None:
    fake_cards({"uuid": "GPU-0"}, {"uuid": "GPU-1"})
    amd_cards({"hip_uuid": "GPU-a", "used": 5 * 1024, "load": 87, "processes": {"11": 4 * GIB}}, {"hip_uuid": "GPU-b"})
    assert [device.label for device in discover()] == ["0", "1", "2", "3"]
    first, second = readings()[2:]
    assert first.device == Device(2, "AMD Instinct MI300X", 196_592 * 2**20, "GPU-a", vendor="amd")
    assert (first.used, first.load, first.processes) == (5 * GIB, 87, (CardProcess(11, 4 * GIB),))
    assert second.load is None
    assert sys.modules["amdsmi"]._open == 0


def test_a_process_sees_its_cards_by_the_variable_of_their_vendor(
    fake_cards: Callable[..., None], amd_cards: Callable[..., None]
) -> None:
    fake_cards()
    amd_cards({"hip_uuid": "GPU-a"}, {"hip_uuid": "GPU-b"})
    assert environment_of(discover()) == {"ROCR_VISIBLE_DEVICES": "GPU-a,GPU-b"}


def test_a_card_that_does_not_answer_is_left_out_and_the_others_keep_their_numbers(
    fake_cards: Callable[..., None], amd_cards: Callable[..., None]
) -> None:
    fake_cards()
    amd_cards({"hip_uuid": "GPU-a", "lost": True}, {"hip_uuid": "GPU-b"})
    assert [(device.label, device.uuid) for device in discover()] == [("1", "GPU-b")]
    amd_cards()
    assert discover() == []
    assert absent() == "no GPU here: AMD's driver is there and finds no card"


def test_where_the_driver_is_and_no_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_cards: Callable[..., None]
) -> None:
    fake_cards()
    monkeypatch.setattr(discovery, "AMD_DRIVER", tmp_path)
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    forget(monkeypatch)
    assert discover() == []
    assert "pip install 'paibook[amd]'" in absent()
