"""The cells of docs/parameter-server.md run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paibook.algorithms.ps.rows import as_table

PAGE = Path(__file__).parents[4] / "docs" / "parameter-server.md"


def documented(part: str) -> str:
    """The body of the page's cell that holds a text."""
    cells = re.findall(r"^```\n%%pai_ps [^\n]*\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return next(cell for cell in cells if part in cell)


def test_the_first_one(cell: Any) -> None:
    chance = np.random.default_rng(0)
    keys = chance.integers(0, 50, (500, 4))
    run = cell(documented("needed, place"), workers=2, keys=keys, labels=(keys < 10).any(axis=1).astype(float))
    known, weights = run.tables["w"]
    assert weights[known < 10].min() > weights[known >= 10].max()


def test_an_estimator(cell: Any, tmp_path: Path) -> None:
    source = documented("FTRLLogisticRegression").replace("clicks/", f"{tmp_path}/")
    for part in range(2):
        lines = [f"{i % 2} {i % 2 + 1}:1 3:1\n" for i in range(100)]
        (tmp_path / f"{part}.libsvm").write_text("".join(lines))
    run = cell(source, workers=2)
    model = run.returned[0].load(run.tables)
    rows = as_table([1, 2], [1.0, 1.0], [0, 1, 2], [0, 1])
    assert model.predict(rows).tolist() == [0, 1]


def test_an_embedding(cell: Any) -> None:
    pytest.importorskip("torch")
    run = cell(documented("pai.Embedding"), workers=2)
    keys, rows = run.tables["users"]
    assert keys.tolist() == [5, 2**60]
    assert rows.sum(axis=1) == pytest.approx(1, abs=0.5)
