"""Dask collections as lists of delayed values, whichever library is to compute them."""

from __future__ import annotations

from typing import Any


def delayed_values(collection: Any) -> list[Any]:
    """The partitions of a bag, a DataFrame or an array, or delayed values as they are, in one flat list."""
    delayed = collection if isinstance(collection, (list, tuple)) else collection.to_delayed()
    return list(delayed.ravel() if hasattr(delayed, "ravel") else delayed)  # an array has a grid of them
