"""Sampling: what a few values of a list tell about all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SAMPLE = 1024
_CERTAIN = 5  # values met again, fewer of which may be chance


def is_repetitive(values: Sequence[Any]) -> bool:
    """Whether a list most likely repeats few different values, each four times or more.

    How many there are is told by how often a value of the sample is met again, as in the birthday problem.

    Args:
        values: Hashable ones.
    """
    return is_sample_repetitive(values[:: max(1, len(values) // SAMPLE)], len(values))


def is_sample_repetitive(sample: Sequence[Any], count: int) -> bool:
    """As ``is_repetitive``, of ``count`` values of which a sample is at hand."""
    size = len(sample)
    again = size - len(set(sample))
    if 2 * again >= size > 0:
        return True
    return 2 * size < count and again >= _CERTAIN and size * size / (2 * again) <= count / 4
