"""Quantiles: the value below which a given part of a column lies, from digests of a bounded size.

Sorting everything would bring it all to one place; a t-digest (Dunning and Ertl, 2019) holds a few hundred centroids,
is most exact at both ends, and two of them merge into one, so the combiner sends one digest for each task.

Hyperparameters: ``columns``, ``probabilities`` (from 0 to 1), ``centroids`` (more are more exact).
"""

from itertools import islice

from fastdigest import TDigest


def map(record):
    for column in hp.columns:
        value = record[column] if isinstance(record, dict) else record
        if value is not None and value == value:
            yield column, float(value)


def combine(column, values):
    yield column, digest(values).to_bytes()


def reduce(column, values):
    whole = digest(values)
    for probability in hp.probabilities:
        yield {"column": column, "probability": probability, "value": whole.quantile(probability)}


def digest(values):
    """One digest of numbers and of the digests that combiners made of numbers."""
    whole = TDigest(max_centroids=hp.centroids)
    values = iter(values)
    while piece := list(islice(values, 10_000)):
        numbers = [value for value in piece if not isinstance(value, bytes)]
        if numbers:
            whole.batch_update(numbers)
        for value in piece:
            if isinstance(value, bytes):
                whole.merge_inplace(TDigest.from_bytes(value))
    return whole
