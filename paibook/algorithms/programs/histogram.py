"""Histogram: how many numbers of a column fall into each of some bins of equal width.

As NumPy's: a bin holds its left edge and not its right one, but the last holds both; what lies outside is left out.
Hyperparameters: ``column``, ``edges`` (of the bins, rising).
"""

from bisect import bisect_right

LAST = len(hp.edges) - 2


def map(record):
    value = record[hp.column] if isinstance(record, dict) else record
    if value is not None and hp.edges[0] <= float(value) <= hp.edges[-1]:
        yield min(bisect_right(hp.edges, float(value)) - 1, LAST), 1


def combine(bin, counts):
    yield bin, sum(counts)


def reduce(bin, counts):
    yield {"bin": bin, "low": hp.edges[bin], "high": hp.edges[bin + 1], "count": sum(counts)}
