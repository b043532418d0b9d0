"""Pulled variables: the words, and whether ranks agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paibook.errors import PlanError
from paibook.runtimes.pulls import Parcel, agree, pack, parse, sent, unpack


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


def parcels(wanted: Any, *namespaces: dict[str, Any]) -> dict[int, Parcel]:
    ranks = range(len(namespaces))
    return {rank: pack(namespaces[rank], rank, wanted, ranks) for rank in ranks}


def test_the_lowest_rank_sends_unless_another_is_named() -> None:
    wanted = parse(["same", "other", "mine@1"])
    large = np.zeros(100_000)
    sent_by = parcels(wanted, {"same": large, "other": 0}, {"same": large, "other": 1, "mine": 2})
    assert sent_by[1].values["same"].data is None  # a fingerprint is enough
    pulled, differs = unpack(wanted, sent_by)
    assert np.array_equal(pulled.pop("same"), large)
    assert pulled == {"other": 0, "mine": 2}
    assert differs == {"other"}


def test_what_is_not_there_or_cannot_travel_is_named() -> None:
    with pytest.raises(PlanError, match="--pull w: rank 1: it has no such variable"):
        unpack((("w", None),), parcels((("w", None),), {"w": 1}, {}))
    with pytest.raises(PlanError, match="--pull w: rank 0: a generator cannot be sent"):
        unpack((("w", None),), parcels((("w", None),), {"w": (i for i in ())}, {"w": 1}))
