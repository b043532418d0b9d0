"""Pulled variables: the words, and whether ranks agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paibook.errors import PlanError
from paibook.runtimes.allreduce.pulls import agree, parse, sent


def test_words() -> None:
    assert parse(["w", "loss@3"]) == (("w", None), ("loss", 3))
    for word in ("", "a b", "w@", "w@-1", "w@x", "@1"):
        with pytest.raises(PlanError, match="--pull takes"):
            parse([word])


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1, 1, True),
        (1, 2, False),
        (1, 1.0, False),
        (np.arange(3), np.arange(3), True),
        (np.arange(3), np.arange(4), False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (np.zeros(100_000), np.zeros(100_000), True),
        (np.zeros(100_000), np.ones(100_000), False),
        ([np.arange(2)], [np.arange(1, 3)], False),
    ],
)
def test_agreement(left: Any, right: Any, equal: bool) -> None:
    assert agree({0: sent(left, True), 1: sent(right, False)}) is equal
