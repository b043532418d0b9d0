"""The compiled loops of latent Dirichlet allocation: sampling words' topics, and finding texts' shares of topics.

Texts are compressed: text d has the words ``words[starts[d]:starts[d + 1]]``, which are rows of a matrix.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.runtimes.ps.jit import jit

Array = NDArray[Any]


@jit
def sample_topics(
    starts: Array,
    words: Array,
    topics: Array,
    counts: Array,
    totals: Array,
    draws: Array,
    alpha: float,
    beta: float,
    size: int,
    counted: bool,
) -> float:
    """Draw the topic of each word once, given those of all others: one sweep of collapsed Gibbs sampling.

    Griffiths and Steyvers, "Finding scientific topics", PNAS 101, 2004, equation 5. ``topics``, ``counts`` and
    ``totals`` are changed in place.

    Args:
        starts, words: The texts.
        topics: Of each word, int32 ``(len(words),)``; -1 where it has none yet.
        counts: Words of each topic, ``(rows, k)``. Stale ones may be below 0, which counts as 0.
        totals: The same over all words, ``(k,)``.
        draws: A random number in [0, 1) for each word.
        alpha, beta: Priors of topics in a text, and of words in a topic.
        size: Words in the vocabulary.
        counted: Whether words without a topic are in the counts nevertheless; those stay as they are then.

    Returns:
        The sum of log P(word | all others), in nats.
    """
    k = len(totals)
    here, cumulative, scale = np.zeros(k), np.zeros(k), np.zeros(k)
    for topic in range(k):
        scale[topic] = 1 / (max(totals[topic], 0.0) + size * beta)
    score = 0.0
    for d in range(len(starts) - 1):
        here[:] = alpha
        length = k * alpha
        for i in range(starts[d], starts[d + 1]):
            if topics[i] >= 0:
                here[topics[i]] += 1
                length += 1
        for i in range(starts[d], starts[d + 1]):
            row, old = counts[words[i]], topics[i]
            if old >= 0:
                here[old] -= 1
                length -= 1
                row[old] -= 1
                totals[old] -= 1
                scale[old] = 1 / (max(totals[old], 0.0) + size * beta)
            total = 0.0
            for topic in range(k):
                total += here[topic] * (max(row[topic], 0.0) + beta) * scale[topic]
                cumulative[topic] = total
            score += math.log(total / length)
            new, mark = 0, draws[i] * total
            while new < k - 1 and cumulative[new] <= mark:
                new += 1
            topics[i] = new
            here[new] += 1
            length += 1
            if old >= 0 or not counted:
                row[new] += 1
                totals[new] += 1
                scale[new] = 1 / (max(totals[new], 0.0) + size * beta)
    return score


@jit
def topic_shares(
    starts: Array, words: Array, probabilities: Array, alpha: float, rounds: int, tolerance: float
) -> Array:
    """What share of each text is of which topic, the topics being known: expectation maximisation.

    The estimate is the mode under a Dirichlet prior of ``alpha + 1``, which does as well as a mean under ``alpha``
    (Asuncion et al., "On smoothing and inference for topic models", UAI 2009).

    Args:
        starts, words: The texts.
        probabilities: Of each word in each topic, ``(rows, k)``.
        alpha: The prior.
        rounds, tolerance: A text is done after so many rounds, or when no share moves by more.

    Returns:
        Shares ``(texts, k)``; each row adds up to 1.
    """
    k = probabilities.shape[1]
    shares = np.full((len(starts) - 1, k), 1 / k)
    part, fresh = np.zeros(k), np.zeros(k)
    for d in range(len(starts) - 1):
        own = shares[d]
        length = starts[d + 1] - starts[d] + k * alpha
        for _ in range(rounds):
            fresh[:] = alpha
            for i in range(starts[d], starts[d + 1]):
                total = 0.0
                for topic in range(k):
                    part[topic] = own[topic] * probabilities[words[i], topic]
                    total += part[topic]
                for topic in range(k):
                    fresh[topic] += part[topic] / total
            moved = 0.0
            for topic in range(k):
                share = fresh[topic] / length
                moved = max(moved, abs(share - own[topic]))
                own[topic] = share
            if moved < tolerance:
                break
    return shares
