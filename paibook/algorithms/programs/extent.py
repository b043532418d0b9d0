"""Extent: the least and greatest number of a column. Hyperparameter: ``column``. Missing values do not count."""


def map(record):
    value = record[hp.column] if isinstance(record, dict) else record
    if value is not None and value == value:
        yield "extent", (float(value), float(value))


def combine(key, extents):
    lows, highs = zip(*extents)
    yield key, (min(lows), max(highs))


def reduce(key, extents):
    lows, highs = zip(*extents)
    yield {"low": min(lows), "high": max(highs)}
