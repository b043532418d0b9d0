"""One step of k-means (Lloyd, 1982): each point goes to its nearest center, each center to the mean of its points.

The combiner adds up vectors, so a task sends one sum for each center, however many points it read.
Hyperparameters: ``centers`` (k lists of numbers), ``columns`` (of the vector; a record that is a sequence needs none).
"""

import numpy as np

CENTERS = np.array(hp.centers, dtype=float)


def map(record):
    values = [record[column] for column in hp.columns] if hp.columns else record
    point = np.asarray(values, dtype=float)
    distances = ((CENTERS - point) ** 2).sum(axis=1)
    nearest = int(distances.argmin())
    yield nearest, (1, point, float(distances[nearest]))


def combine(center, parts):
    yield center, added(parts)


def reduce(center, parts):
    size, total, inertia = added(parts)
    yield {"cluster": center, "size": size, "center": (total / size).tolist(), "inertia": inertia}


def added(parts):
    """The parts' sizes, sums of points and sums of squared distances, each added up."""
    size, total, inertia = 0, 0.0, 0.0
    for count, point, distance in parts:
        size, total, inertia = size + count, total + point, inertia + distance
    return size, total, inertia
