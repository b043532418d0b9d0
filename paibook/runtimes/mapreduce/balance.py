"""Balance: which buckets each reduce task takes, decided by their sizes once all map tasks are done."""

from __future__ import annotations

from collections.abc import Sequence


def runs_of_buckets(sizes: Sequence[int], tasks: int) -> list[range]:
    """Cut buckets into at most ``tasks`` runs of neighbours of about equal size; a heavy one stands alone.

    Args:
        sizes: Bytes of each bucket.
        tasks: Reduce tasks wanted.

    Returns:
        Ranges that cover all buckets in order, none of them empty.

    >>> runs_of_buckets([1, 1, 1, 1, 10, 1], 3)
    [range(0, 4), range(4, 5), range(5, 6)]
    """
    if tasks >= len(sizes):
        return [range(i, i + 1) for i in range(len(sizes))]
    # The least bound on a run's size with which no more than ``tasks`` runs are needed, by bisection.
    low, high = max(max(sizes), -(-sum(sizes) // tasks)), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        if len(_cut(sizes, middle)) <= tasks:
            high = middle
        else:
            low = middle + 1
    return _cut(sizes, low)


def _cut(sizes: Sequence[int], bound: int) -> list[range]:
    runs: list[range] = []
    start, held = 0, 0
    for i, size in enumerate(sizes):
        if i > start and held + size > bound:
            runs.append(range(start, i))
            start, held = i, 0
        held += size
    runs.append(range(start, len(sizes)))
    return runs
