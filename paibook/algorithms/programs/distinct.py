"""Distinct: one record of those that are equal, or equal in some columns.

Which one is kept where only some columns count is not determined. Hyperparameter: ``columns`` (all where empty).
"""


def map(record):
    if not isinstance(record, dict):
        yield record, record
        return
    columns = hp.columns or sorted(record)
    yield tuple((column, same(record.get(column))) for column in columns), record


def combine(key, records):
    yield key, next(iter(records))


def reduce(key, records):
    yield next(iter(records))


def same(value):
    """The value as part of a key: NaN is not equal to itself, but here it is, and lists cannot be hashed."""
    if isinstance(value, list):
        return tuple(same(item) for item in value)
    return None if value != value else value
