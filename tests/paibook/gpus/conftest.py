"""Cards that are not there."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import paibook.gpus

FAKE_NVML = Path(__file__).parents[2] / "fake_nvml" / "pynvml.py"


@pytest.fixture
def fake_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Load a fake NVML library in place of the real one; the function given says which cards there are from now on."""
    spec = importlib.util.spec_from_file_location("pynvml", FAKE_NVML)
    assert spec is not None
    assert spec.loader is not None
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delitem(sys.modules, "paibook.gpus.nvml", raising=False)
    monkeypatch.delattr(paibook.gpus, "nvml", raising=False)
    file = tmp_path / "cards.json"

    def say(*cards: dict[str, Any]) -> None:
        file.write_text(json.dumps(cards))
        monkeypatch.setenv("FAKE_NVML", str(file))

    return say
