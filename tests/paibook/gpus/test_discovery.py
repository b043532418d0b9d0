"""What is read from NVML. A fake NVML library is loaded in place of the real one: no card is needed."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

import paibook.gpus
from paibook.gpus import CardProcess, Device, absent, discover, readings

GIB = 2**30


def test_cards_are_listed_in_the_drivers_order_and_the_driver_is_released(fake_cards: Callable[..., None]) -> None:
    fake_cards({"uuid": "GPU-0"}, {"uuid": "GPU-1"})
    assert discover() == [Device(i, "NVIDIA H200", 140 * GIB, f"GPU-{i}") for i in range(2)]
    assert sys.modules["pynvml"]._open == 0


def test_memory_load_and_processes_are_read(fake_cards: Callable[..., None]) -> None:
    fake_cards({"uuid": "GPU-0", "used": 5 * GIB, "load": 87, "processes": {"11": 4 * GIB, "12": None}})
    (reading,) = readings()
    assert (reading.used, reading.load) == (5 * GIB, 87)
    assert reading.processes == (CardProcess(11, 4 * GIB), CardProcess(12, None))


def test_a_divided_card_is_given_as_its_slices(fake_cards: Callable[..., None]) -> None:
    slices = [{"uuid": f"MIG-{i}", "name": "NVIDIA H200 MIG 1g.18gb", "total": 18 * GIB} for i in range(2)]
    fake_cards({"uuid": "GPU-0"}, {"uuid": "GPU-1", "slices": slices})
    assert [(device.label, device.uuid) for device in discover()] == [
        ("0", "GPU-0"),
        ("1:0", "MIG-0"),
        ("1:1", "MIG-1"),
    ]
    assert [reading.load for reading in readings()] == [0, None, None]


def test_a_card_that_fell_off_the_bus_is_left_out_and_the_others_keep_their_numbers(
    fake_cards: Callable[..., None],
) -> None:
    fake_cards({"uuid": "GPU-0", "lost": True}, {"uuid": "GPU-1"})
    assert [device.label for device in discover()] == ["1"]


def test_a_library_without_a_driver_finds_no_cards_and_says_so(
    fake_cards: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAKE_NVML", raising=False)
    assert discover() == []
    assert absent() == "no GPU here: NVML Shared Library Not Found"


def test_without_the_library_there_are_no_cards_and_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delitem(sys.modules, "paibook.gpus.nvml", raising=False)
    monkeypatch.delattr(paibook.gpus, "nvml", raising=False)
    assert discover() == []
    assert "pip install 'paibook[gpu]'" in absent()
