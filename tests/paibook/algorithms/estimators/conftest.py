"""Ranks that are threads, as a fixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.paibook.comms.thread_ranks import on_ranks

OnRanks = Callable[[int, Callable[[Any], Any]], list[Any]]


@pytest.fixture(name="on_ranks")
def on_ranks_fixture() -> OnRanks:
    return on_ranks
