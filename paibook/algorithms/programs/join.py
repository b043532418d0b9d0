"""Join: records of two inputs that have the same key, as in SQL: a missing key matches nothing.

``order`` lets a key's right records come first, so that each left record can be answered as soon as it is seen.

Hyperparameters: ``left_on``, ``right_on`` (lists of columns), ``how`` (``inner``, ``left``, ``semi``, ``anti``),
``suffix`` (added to a column of the right that the left has too).
"""

RIGHT, LEFT = 0, 1


def key_of(record, columns):
    """The key, or None where a part of it is missing."""
    key = tuple(record.get(column) for column in columns)
    if any(part is None or part != part for part in key):  # NaN is not equal to itself
        return None
    return key if len(key) > 1 else key[0]


def map_left(record):
    key = key_of(record, hp.left_on)
    if key is not None or hp.how in ("left", "anti"):
        yield key, (LEFT, record)


def map_right(record):
    key = key_of(record, hp.right_on)
    if key is not None:
        # A semi-join asks only whether there is one.
        yield key, (RIGHT, None if hp.how in ("semi", "anti") else record)


def order(value):
    return value[0]


def reduce(key, values):
    matches = []
    for side, record in values:
        if side == RIGHT:
            matches.append(record)
        elif hp.how in ("semi", "anti"):
            if bool(matches) == (hp.how == "semi"):
                yield record
        elif matches:
            for match in matches:
                yield {**record, **renamed(match, record)}
        elif hp.how == "left":
            yield record


def renamed(match, record):
    """The right record's columns without its key, each suffixed where the left has one of that name."""
    columns = {column: value for column, value in match.items() if column not in hp.right_on}
    return {column + hp.suffix if column in record else column: value for column, value in columns.items()}
