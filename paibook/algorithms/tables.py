"""Algorithms on tables: joins, distinct, sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from paibook.algorithms import cells
from paibook.errors import PlanError

How = Literal["inner", "left", "semi", "anti"]


def join(
    left: Any,
    right: Any,
    on: str | Sequence[str] | None = None,
    *,
    how: How = "inner",
    left_on: str | Sequence[str] | None = None,
    right_on: str | Sequence[str] | None = None,
    suffix: str = "_right",
    **options: Any,
) -> Any:
    """Join the records of two inputs that have the same key, as SQL does: a missing key matches nothing.

    Args:
        left, right: Inputs of records. All records of one key are in memory at once.
        on: Key column or columns; ``left_on`` and ``right_on`` where their names differ.
        how: ``"inner"``; ``"left"`` keeps left records without a match; ``"semi"`` keeps left records that have one,
            ``"anti"`` those that have none, both without the right's columns.
        suffix: Added to a column of the right that the left has too.
        options: ``out``, ``overwrite``, ``session``, ``workers``, and options of ``%%pai_mapreduce``.

    Returns:
        The joined records; a ``Dataset`` where ``out`` is given.

    Raises:
        PlanError: An unknown kind of join, or keys that do not fit together.
    """
    if how not in get_args(How):
        raise PlanError(f"how is one of {', '.join(get_args(How))}; got {how!r}")
    keys = [_columns(chosen if chosen is not None else on) for chosen in (left_on, right_on)]
    if not keys[0] or len(keys[0]) != len(keys[1]):
        raise PlanError(f"a join needs as many key columns on both sides: on=..., or left_on and right_on; got {keys}")
    hyperparameters = {"left_on": keys[0], "right_on": keys[1], "how": how, "suffix": suffix}
    return cells.run("join", {"left": left, "right": right}, hyperparameters, **options)


def distinct(inputs: Any, columns: str | Sequence[str] | None = None, **options: Any) -> Any:
    """Keep one record of those that are equal, in ``columns`` or in all; which one is not determined.

    Args:
        inputs: Records of any kind; ``columns`` needs dicts.
        columns: Those that count.
        options: As in ``join``.
    """
    return cells.run("distinct", inputs, {"columns": _columns(columns)}, **options)


def sample(inputs: Any, n: int, *, seed: int = 0, **options: Any) -> Any:
    """Draw exactly ``n`` records, each set of n equally likely; all of them where there are fewer.

    Args:
        inputs: Records of any kind.
        n: How many, 1 or more.
        seed: The same gives the same sample as long as the input is cut into the same tasks.
        options: As in ``join``.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise PlanError(f"a sample has a whole number of records, 1 or more; got {n!r}")
    return cells.run("sample", inputs, {"n": n, "seed": seed}, **options)


def _columns(names: str | Sequence[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())
