"""Texts as words by key, and what learners of words share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from paibook.algorithms.ps.learner import Learner
from paibook.errors import DataError

Self = TypeVar("Self", bound="WordLearner")


@dataclass(eq=False, kw_only=True)
class WordLearner(Learner):
    """A learner with a row for each word.

    Attributes:
        vocabulary_: The words, sorted.
    """

    vocabulary_: list[str] = field(default_factory=list, init=False, repr=False)

    def together(self: Self, workers: Sequence[Self]) -> Self:
        """With the words of all workers."""
        merged = super().together(workers)
        words: set[str] = set()
        merged.vocabulary_ = sorted(words.union(*(worker.vocabulary_ for worker in workers)))
        return merged


def word_keys(words: Sequence[str]) -> np.ndarray:
    """A key for each word, the same in every process: 64 bits of its hash."""
    hashes: np.ndarray = pd.util.hash_array(np.array(words, dtype=object), categorize=False)
    return hashes.view(np.int64)


def frequent_words(texts: Iterable[Sequence[str]], least: int) -> tuple[list[str], np.ndarray]:
    """Words that occur at least so often, sorted, and how often each does.

    Raises:
        DataError: There are none.
    """
    counts = Counter(word for text in texts for word in text)
    words = sorted(word for word, count in counts.items() if count >= least)
    if not words:
        raise DataError(f"no word occurs {least} times in this worker's texts; lower min_count or bring more text")
    return words, np.array([counts[word] for word in words], np.float64)


def listed_words(text: Any) -> list[str]:
    """The words of a text that is a list of them.

    Raises:
        DataError: It is something else.
    """
    words = list(text) if isinstance(text, Iterable) else [text]
    if not all(isinstance(word, str) for word in words):
        raise DataError(f"a text is a str or a list of words; got {text!r:.80}")
    return words


def column(table: Any, name: str) -> list[Any]:
    """A column of a table, Arrow's or a DataFrame.

    Raises:
        DataError: It has no such column.
    """
    frame = table.to_pandas() if hasattr(table, "to_pandas") else table
    if name not in getattr(frame, "columns", (name,)):
        raise DataError(f"X has no column {name!r}")
    found: list[Any] = frame[name].tolist()
    return found
