"""Bars of several ranks as one."""

from __future__ import annotations

import io

import pytest
from tqdm import tqdm

from paibook_magics.progress_bars import merged_bars


def drawn(count: int, total: int, elapsed: float = 2.0, **options: object) -> str:
    """A bar as tqdm itself draws it."""
    bar = tqdm(total=total, file=io.StringIO(), ncols=80, **options)  # type: ignore[call-overload]
    return str(bar.format_meter(**{**bar.format_dict, "n": count, "elapsed": elapsed}))


def test_the_slowest_the_middle_and_the_fastest() -> None:
    rows = [(f"[rank {rank}] ", drawn(count, 40, desc="fit")) for rank, count in enumerate([20, 10, 40, 30])]
    [(label, text)] = merged_bars(rows)
    assert label == "[ranks 0-3] "
    assert text == "fit:  50%|█████     | 10 / 20 / 40 of 40 [00:02<00:06,  5.00it/s]"


def test_ranks_in_step() -> None:
    rows = [(f"[rank {rank}] ", drawn(40, 40)) for rank in range(2)]
    assert merged_bars(rows) == [("[ranks 0-1] ", "100%|██████████| 40 of 40 [00:02<00:00, 20.00it/s]")]


def test_scaled_counts_are_put_in_order() -> None:
    rows = [(f"[rank {rank}] ", drawn(count, 10**6, unit_scale=True)) for rank, count in enumerate([2000, 900_000])]
    [(_, text)] = merged_bars(rows)
    assert "2.00k / 2.00k / 900k of 1.00M" in text


@pytest.mark.parametrize("other", ["epoch 3 ...", "12it [00:01, 9.8it/s]", "50%|half", "a | b"])
def test_what_is_no_bar_or_of_another_kind_stays(other: str) -> None:
    rows = [("[rank 0] ", drawn(1, 4, desc="a")), ("[rank 1] ", drawn(1, 4, desc="b")), ("[rank 2] ", other)]
    assert merged_bars(rows) == rows
