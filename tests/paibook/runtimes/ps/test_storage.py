"""What a cell asks of its servers' storage, end to end: types, texts as keys, lives of rows, NaN, memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paibook.errors import PlanError, RunError


def test_sixteen_bits_and_texts_as_keys(bench: Any) -> None:
    cell = """
    import numpy as np

    def train(ps):
        e = ps.table("e", sparse=True, width=2, dtype="bfloat16", optimizer=pai.SGD(1.0), init=1.0)
        w = ps.table("w", shape=(5, 3), dtype="bfloat16", optimizer=pai.Momentum(lr=0.5))
        for clock in ps.clocks(2):
            words = ["tree", "house", "tree"] if rank == 0 else np.array(["house"])
            e.push(words, np.ones((len(words), 2)))
            w.push(np.ones((5, 3), np.float32))
        return e.pull(["house", "tree", "sea"]).astype(float)[:, 0].tolist(), w.pull()
    """
    result = bench.run(cell, workers=2)
    rows, whole = result.returned[0]
    assert rows == [-3, -3, 1]
    assert whole.dtype.name == "bfloat16"
    assert np.allclose(whole.astype(float), -0.5 * (2 + 2 + 0.9 * 2), rtol=0.01)
    keys, values = result.tables["e"]
    assert len(keys) == 2
    assert values.dtype.name == "bfloat16"


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_rows_come_and_go(bench: Any, consistency: str) -> None:
    cell = """
    def train(ps):
        options = dict(sparse=True, optimizer=pai.SGD(1.0))
        rare = ps.table("rare", admit=pai.ByCount(3), **options)
        recent = ps.table("recent", expire_after=2, **options)
        few = ps.table("few", max_rows=10, **options)
        for clock in ps.clocks(5):
            rare.push([1] if clock < 2 else [1, 2], [1.0] if clock < 2 else [1.0, 1.0])
            recent.push([clock], [1.0])
            ticket = few.push([clock * 4 + i for i in range(4)], [1.0] * 4)
            few.wait(ticket)
    """
    tables = bench.run(cell, workers=1, servers=1, consistency=consistency).tables
    assert tables["rare"][0].tolist() == [1, 2]
    assert tables["rare"][1][:, 0].tolist() == [-3, -1]
    assert tables["recent"][0].tolist() == [2, 3, 4]
    assert tables["few"][0].tolist() == list(range(10, 20))


WILD = """
    import numpy as np

    def train(ps):
        w = ps.table("w", shape=(4, 2), optimizer=pai.SGD(1.0))
        e = ps.table("e", sparse=True, optimizer=pai.SGD(1.0))
        for clock in ps.clocks(4):
            bad = clock == 2 and rank == 1
            w.push([0, 3], np.array([[1, 1], [np.nan if bad else 1, 1]]))
            e.push([7, 8], [np.inf if bad else 1.0, 1.0])
"""


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_a_gradient_of_nan_ends_the_run_with_table_worker_and_clock(bench: Any, consistency: str) -> None:
    with pytest.raises(RunError, match=r"table 'w': worker rank 1 pushed .* clock 2 \(row 3, 1 of 1 rows\)"):
        bench.run(WILD, workers=2, consistency=consistency)


def test_nan_is_skipped_and_counted_if_asked(bench: Any) -> None:
    result = bench.run(WILD, workers=2, nan="skip")
    assert result.tables["w"].tolist() == [[-8, -8], [0, 0], [0, 0], [-7, -7]]
    assert result.tables["e"][1][:, 0].tolist() == [-7, -8]
    said = "".join(event.data for event in bench.events if event.kind == "stderr")
    assert "table 'w': server 1 skipped 1 rows of gradients with NaN or infinity" in said
    assert "table 'e': server" in said
    with pytest.raises(PlanError, match="--nan takes stop or skip"):
        bench.run(WILD, nan="ignore")
