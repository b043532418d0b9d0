"""Word vectors of a language in which words of one topic occur together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from paibook.algorithms import Word2Vec
from paibook.algorithms.ps.texts import word_keys
from paibook.errors import DataError, PlanError

TOPICS = {
    "sea": ["wave", "harbour", "sail", "anchor", "tide", "island"],
    "farm": ["plough", "barn", "wheat", "cattle", "fence", "orchard"],
    "court": ["judge", "verdict", "lawyer", "jury", "appeal", "trial"],
}


def texts(count: int = 600) -> list[str]:
    chance = np.random.default_rng(5)
    words = list(TOPICS.values())
    return [" ".join(chance.choice(words[chance.integers(3)], 8)) + " the" for _ in range(count)]


MODEL = Word2Vec(dim=16, window=3, epochs=6, batch_size=512, subsample=0, min_count=3)


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_neighbours_are_of_the_same_topic(fitted: Any, consistency: str) -> None:
    model = fitted(MODEL, texts(), consistency=consistency)
    for words in TOPICS.values():
        for word in words:
            nearest = [other for other, _ in model.most_similar(word, 5)]
            assert set(nearest) == set(words) - {word}
    assert model.vectors_.shape == (19, 16)
    np.testing.assert_array_equal(model["judge"], model.vectors_[model.vocabulary_.index("judge")])
    with pytest.raises(KeyError, match="gavel"):
        model["gavel"]


def test_workers_with_words_of_their_own(fitted: Any) -> None:
    model = fitted(Word2Vec(dim=4, min_count=1, epochs=1, subsample=0), [["only", "here"], ["and", "there"]])
    assert model.vocabulary_ == ["and", "here", "only", "there"]
    assert np.abs(model.vectors_).sum(axis=1).all()


def test_keys_do_not_depend_on_the_process() -> None:
    assert word_keys(["wave", "tide"]).tolist() == [5908076722321425389, 3033022334419773078]


def test_what_cannot_be_meant_is_refused(fitted: Any) -> None:
    with pytest.raises(PlanError, match="negatives and min_count of 1 or more"):
        fitted(Word2Vec(negatives=0), texts(4))
    with pytest.raises(DataError, match="no word occurs 50 times"):
        fitted(Word2Vec(min_count=50), texts(4))
    with pytest.raises(DataError, match="a text is a str or a list of words"):
        fitted(Word2Vec(), [[1, 2], [3]])


def test_a_column_of_a_table(fitted: Any) -> None:
    model = fitted(Word2Vec(dim=4, epochs=1), pd.DataFrame({"text": texts(50), "id": range(50)}), "text")
    assert len(model.vocabulary_) == 19
    with pytest.raises(DataError, match="X has no column 'txt'"):
        fitted(Word2Vec(), pd.DataFrame({"text": ["a"] * 9}), "txt")
