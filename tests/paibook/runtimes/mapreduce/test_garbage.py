"""Garbage collection is as it was when the last task has left."""

from __future__ import annotations

import gc

import pytest

from paibook.runtimes.mapreduce.garbage import RARELY, rare_collection


def test_thresholds_come_back_after_the_last_task() -> None:
    usual = gc.get_threshold()
    with rare_collection():
        with pytest.raises(ZeroDivisionError), rare_collection():
            1 / 0
        assert gc.get_threshold() == RARELY
    assert gc.get_threshold() == usual
