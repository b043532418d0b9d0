"""What compressing gradients needs wherever they travel; plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def largest(sizes: NDArray[Any], ratio: float) -> NDArray[np.intp]:
    """Places of the largest ``ratio`` of them, one at least, in no order. NaN is larger than anything.

    Args:
        sizes: Not negative, shape (n,), n at least 1.
        ratio: Above 0 and at most 1.

    >>> sorted(largest(np.array([3.0, 1.0, 2.0, 4.0]), 0.5).tolist())
    [0, 3]
    """
    kept = kept_of(len(sizes), ratio)
    return np.argpartition(sizes, len(sizes) - kept)[len(sizes) - kept :]


def kept_of(count: int, ratio: float) -> int:
    """How many of ``count`` values are sent.

    >>> kept_of(1000, 0.01), kept_of(3, 0.01)
    (10, 1)
    """
    return max(1, round(ratio * count))


def check_ratio(ratio: Any) -> float:
    """The share of the values that is sent.

    Raises:
        ValueError: Not a number above 0 and at most 1.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1; got {ratio!r}")
    return float(ratio)
