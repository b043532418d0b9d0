"""Statistics of columns: histogram, quantiles, cleaning report."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from paibook.algorithms import cells
from paibook.errors import DataError, PlanError

MISSING = ("", "?", "-", "NA", "N/A", "n/a", "nan", "NaN", "NULL", "null", "None")


def histogram(
    inputs: Any, column: str = "", *, bins: int = 10, range: tuple[float, float] | None = None, **options: Any
) -> Any:
    """Count the numbers of a column in bins of equal width, as ``numpy.histogram`` does.

    Args:
        inputs: Records with that column, or numbers themselves. Missing values do not count.
        column: Its name.
        bins: How many.
        range: Least and greatest number counted; found in a first pass where None.
        options: ``out``, ``overwrite``, ``session``, ``workers``, and options of ``%%pai_mapreduce``.

    Returns:
        Columns ``bin``, ``low``, ``high``, ``count``. Bins without numbers are left out of what ``out`` writes only.

    Raises:
        DataError: There are no numbers.
        PlanError: No bins, or a range that is none.
    """
    if bins < 1:
        raise PlanError(f"a histogram has 1 bin or more; got {bins!r}")
    low, high = range if range is not None else _extent(inputs, column, options)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise PlanError(f"the range of a histogram goes from a finite number to a greater one; got {low!r} to {high!r}")
    edges = np.histogram_bin_edges([], bins, (low, high))
    result = cells.run("histogram", inputs, {"column": column, "edges": edges.tolist()}, **options)
    return result if options.get("out") is not None else _all_bins(result, edges)


def quantiles(
    inputs: Any,
    columns: str | Sequence[str] = "",
    probabilities: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    *,
    centroids: int = 1000,
    **options: Any,
) -> Any:
    """Find quantiles of columns by t-digests: of a bounded size, most exact towards both ends, in one pass.

    Args:
        inputs: Records with these columns, or numbers themselves. Missing values do not count.
        columns: One or more.
        probabilities: From 0 (the least value) to 1 (the greatest).
        centroids: Of each digest; more are more exact.
        options: As in ``histogram``.

    Returns:
        Columns ``column``, ``probability``, ``value``.

    Raises:
        PlanError: A probability outside 0 to 1, or the library fastdigest is missing.
    """
    wrong = [p for p in probabilities if not 0 <= p <= 1]
    if wrong:
        raise PlanError(f"a probability lies between 0 and 1; got {wrong[0]!r}")
    _need_digests()
    names = [columns] if isinstance(columns, str) else list(columns)
    hyperparameters = {"columns": names, "probabilities": list(probabilities), "centroids": centroids}
    return cells.run("quantiles", inputs, hyperparameters, **options)


def cleaning_report(inputs: Any, *, missing: Sequence[str] = MISSING, examples: int = 5, **options: Any) -> Any:
    """Report for each column what it holds and what in it looks wrong.

    Args:
        inputs: Records that are dicts.
        missing: Texts that stand for a missing value.
        examples: Bad values shown for each column.
        options: As in ``histogram``.

    Returns:
        A row for each column: ``column``, ``type``, ``values``, ``missing``, ``missing_share``, ``distinct`` (estimated
        beyond 1024), ``bad`` (values of another type) and ``bad_examples``; for numbers ``min``, ``max``, ``mean``,
        ``q1``, ``median``, ``q3`` and ``outliers`` (beyond 1.5 interquartile ranges, by a t-digest).

    Raises:
        PlanError: The library fastdigest is missing.
    """
    _need_digests()
    return cells.run("cleaning_report", inputs, {"missing": list(missing), "examples": examples}, **options)


def _extent(inputs: Any, column: str, options: dict[str, Any]) -> tuple[float, float]:
    first_pass = {name: value for name, value in options.items() if name not in ("out", "overwrite", "partition_by")}
    found = cells.run("extent", inputs, {"column": column}, **first_pass)
    if not len(found):
        raise DataError(f"the column {column!r} has no numbers to make a histogram of")
    return float(found["low"].iloc[0]), float(found["high"].iloc[0])


def _all_bins(found: Any, edges: np.ndarray) -> Any:
    """The histogram with its empty bins."""
    import pandas

    counts = np.zeros(len(edges) - 1, dtype=int)
    if len(found):
        counts[found["bin"].to_numpy()] = found["count"].to_numpy()
    return pandas.DataFrame({"bin": np.arange(len(counts)), "low": edges[:-1], "high": edges[1:], "count": counts})


def _need_digests() -> None:
    if importlib.util.find_spec("fastdigest") is None:
        raise PlanError(
            "quantiles need the library fastdigest here and on the workers: pip install 'paibook[algorithms]'"
        )
