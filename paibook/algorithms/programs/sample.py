"""Sample: exactly n records, each set of n equally likely (fewer where there are fewer).

Every record draws a random number, and those with the n least numbers are kept; each task needs to send only its own n.
Hyperparameters: ``n``, ``seed``. The same seed gives the same sample while the input is cut into the same tasks.
"""

import heapq
import random


def setup(task):
    task.random = random.Random(f"{hp.seed}/{task.stage}/{task.number}")


def map(record):
    yield "sample", (pai.task().random.random(), record)


def combine(key, drawn):
    for pair in least(drawn):
        yield key, pair


def reduce(key, drawn):
    for _, record in least(drawn):
        yield record


def least(drawn):
    """The n pairs with the least numbers; records are never compared."""
    return heapq.nsmallest(hp.n, drawn, key=lambda pair: pair[0])
