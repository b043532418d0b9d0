"""Where remembered keys lie: found again by their array, within bounds."""

from __future__ import annotations

import numpy as np
import pytest

from paibook.runtimes.ps import lookups as lookups_module
from paibook.runtimes.ps.lookups import Lookups


def test_a_set_is_known_by_its_array_and_not_by_its_keys() -> None:
    lookups, keys = Lookups(), np.array([5, 6])
    lookups.add(keys, np.array([0, 1]), distinct=True)
    known = lookups.get(keys)
    assert known is not None
    assert (known.places.tolist(), known.distinct) == ([0, 1], True)
    assert lookups.get(keys.copy()) is None
    lookups.clear()
    assert lookups.get(keys) is None
    assert lookups.nbytes == 0


def test_those_used_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups_module, "MAX_SETS", 2)
    monkeypatch.setattr(lookups_module, "MAX_BYTES", 160)
    sets = [np.arange(4) for _ in range(3)]
    lookups = Lookups()
    for keys in sets[:2]:
        lookups.add(keys, keys, distinct=True)
    lookups.get(sets[0])
    lookups.add(sets[2], sets[2], distinct=True)
    assert [lookups.get(keys) is not None for keys in sets] == [True, False, True]
    assert lookups.nbytes == 2 * 64
    large = np.arange(8)
    lookups.add(large, large, distinct=True)  # for which both others must go
    assert [lookups.get(keys) is not None for keys in (*sets, large)] == [False, False, False, True]
    huge = np.arange(11)
    lookups.add(huge, huge, distinct=True)
    assert lookups.get(huge) is None
    assert lookups.nbytes == 128
