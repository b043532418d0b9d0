"""Words and their weights: what every generic side does to a document, line by line."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return WORD.findall(text.lower())


def frequencies(line: str) -> Iterator[tuple[str, tuple[str, int]]]:
    """For each word of a document how often it stands there: (word, (document, count))."""
    record = json.loads(line)
    id = record["id"]
    for word, count in Counter(words_of(record["text"])).items():
        yield word, (id, count)


def weights(word: str, found: Sequence[tuple[str, int]], documents: int) -> tuple[list[str], list[str], list[float]]:
    """The columns of one word's rows: word, document, weight.

    The weight is the count times ``ln(documents / documents with the word)`` (Spärck Jones, 1972).
    """
    idf = math.log(documents / len(found))
    return [word] * len(found), [id for id, _ in found], [count * idf for _, count in found]
