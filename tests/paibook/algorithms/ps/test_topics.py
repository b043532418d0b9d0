"""Topics that were planted are found again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from paibook.algorithms import LatentDirichletAllocation
from paibook.algorithms.ps.gibbs import sample_topics, topic_shares
from paibook.algorithms.ps.texts import word_keys
from paibook.errors import DataError, PlanError, RunError

SIDE = 5
WORDS = [f"w{row}{column}" for row in range(SIDE) for column in range(SIDE)]
SQUARE = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
BARS = [set(bar.tolist()) for bar in (*SQUARE, *SQUARE.T)]  # Griffiths and Steyvers, 2004, figure 1
MODEL = LatentDirichletAllocation(
    10, min_count=1, doc_topic_prior=0.5, topic_word_prior=0.1, epochs=200, batch_size=125
)


def texts(count: int = 500, length: int = 60, seed: int = 3) -> tuple[list[list[str]], np.ndarray]:
    """Texts of ten topics, each of which is a row or a column of a square of words; and their shares of topics."""
    chance = np.random.default_rng(seed)
    shares = chance.dirichlet(np.full(len(BARS), 0.15), count)
    found = []
    for share in shares:
        topics = chance.choice(len(BARS), length, p=share)
        found.append([WORDS[sorted(BARS[topic])[chance.integers(SIDE)]] for topic in topics])
    return found, shares


def planted(model: LatentDirichletAllocation) -> list[int]:
    """Which of the planted topics each of the model's is, by its five most frequent words."""
    return [BARS.index({WORDS.index(word) for word in topic}) for topic in model.topics(SIDE)]


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_planted_topics_and_their_shares_are_recovered(fitted: Any, consistency: str) -> None:
    known, _ = texts()
    model = fitted(MODEL, known, consistency=consistency)
    found = planted(model)
    assert sorted(found) == list(range(10))
    counts = model.components_ - 0.1
    assert counts.min() >= -1e-6
    assert counts.sum() == pytest.approx(500 * 60)  # each word has one topic, and is counted once
    new, shares = texts(100, seed=8)
    guessed = model.transform(new)
    np.testing.assert_allclose(guessed.sum(axis=1), 1)
    assert np.corrcoef(guessed.ravel(), shares[:, found].ravel())[0, 1] > 0.97


def test_perplexity_is_near_that_of_the_language_itself(fitted: Any) -> None:
    model, (new, _) = fitted(MODEL, texts()[0]), texts(200, seed=8)
    language = np.array([[word in bar for word in range(len(WORDS))] for bar in BARS]).T / SIDE + 1e-9
    first, second = ([[WORDS.index(word) for word in text[half::2]] for text in new] for half in (0, 1))
    starts = np.arange(len(new) + 1) * len(first[0])
    shares = topic_shares(starts, np.ravel(first), language, 0.5, 100, 1e-4)
    exact = np.exp(-np.log([share @ language[text].T for share, text in zip(shares, second, strict=True)]).mean())
    assert 0.99 * exact < model.perplexity(new) < 1.02 * exact
    assert model.perplexity([["w00", "w44", "unheard"], []]) < np.inf
    with pytest.raises(DataError, match="two words or more that the model knows"):
        model.perplexity([["w00"], ["unheard", "of"]])


def test_bsp_gives_the_same_model_every_time(fitted: Any) -> None:
    first, second = (fitted(LatentDirichletAllocation(4, epochs=3), texts(100)[0]) for _ in range(2))
    np.testing.assert_array_equal(first.components_, second.components_)


RESUMED = """
def train(ps):
    return pai.LatentDirichletAllocation(
        10, min_count=1, doc_topic_prior=0.5, topic_word_prior=0.1, epochs=epochs, batch_size=50
    ).fit(pai.shard(texts), ps=ps)
"""


def test_workers_that_begin_anew_go_on_where_the_others_were(cell: Any, tmp_path: Path) -> None:
    known, _ = texts()
    folder = str(tmp_path / "model")
    # Of five clocks the checkpoint has three: some texts are counted, and some are not.
    cell(RESUMED, workers=2, options={"checkpoint": folder, "checkpoint_every": 3}, texts=known, epochs=1)
    assert json.loads((tmp_path / "model" / "manifest.json").read_text())["clock"] == 3
    resumed = cell(RESUMED, workers=2, options={"checkpoint": folder}, texts=known, epochs=4)
    straight = cell(RESUMED, workers=2, texts=known, epochs=4)
    for found, wanted in zip(resumed.tables["words"], straight.tables["words"], strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_another_number_of_workers_counts_each_word_once(cell: Any, tmp_path: Path) -> None:
    known, _ = texts()
    folder = str(tmp_path / "model")
    cell(RESUMED, workers=2, options={"checkpoint": folder, "checkpoint_every": 5}, texts=known, epochs=4)
    run = cell(RESUMED, workers=3, options={"checkpoint": folder}, texts=known, epochs=8)
    model = run.returned[0].together(run.returned).load(run.tables)
    counted = model._weights("words").take(word_keys(WORDS)).sum(axis=1)
    assert dict(zip(WORDS, counted, strict=True)) == Counter(word for text in known for word in text)
    np.testing.assert_array_equal(run.tables["topics"].ravel(), run.tables["words"][1].sum(axis=0))


def test_texts_are_cut_into_words_and_stop_words_left_out(fitted: Any) -> None:
    frame = pd.DataFrame({"body": ["The sea, the SEA and a Tide!", "a barn; the barn & its tide"] * 20})
    model = fitted(LatentDirichletAllocation(2, min_count=3, stop_words=["the"], epochs=2), frame, "body")
    assert model.vocabulary_ == ["and", "barn", "its", "sea", "tide"]
    assert model.components_.shape == (2, 5)
    assert model.transform(["sea tide", "nothing known"]).shape == (2, 2)
    np.testing.assert_array_equal(model.transform(["nothing known"]), [[0.5, 0.5]])
    english = fitted(LatentDirichletAllocation(2, min_count=3, stop_words="english", epochs=1), frame, "body")
    assert english.vocabulary_ == ["barn", "sea", "tide"]


def test_a_worker_may_have_no_texts(fitted: Any, tmp_path: Path) -> None:
    pd.DataFrame({"text": ["wave tide sail"] * 9}).to_json(tmp_path / "one.jsonl", orient="records", lines=True)
    model = fitted(LatentDirichletAllocation(2, epochs=2), tmp_path / "one.jsonl", "text")
    assert model.vocabulary_ == ["sail", "tide", "wave"]
    assert model.components_.sum() == pytest.approx(27 + 6 * 0.5)


def test_what_cannot_be_meant_is_refused(fitted: Any) -> None:
    with pytest.raises(PlanError, match="whole, of 1 or more, and priors above 0; got n_components=0"):
        fitted(LatentDirichletAllocation(0), ["a text"])
    with pytest.raises(PlanError, match=r"got n_components=2\.5"):
        fitted(LatentDirichletAllocation(2.5), ["a text"])
    with pytest.raises(PlanError, match="priors 0 and None"):
        fitted(LatentDirichletAllocation(doc_topic_prior=0), ["a text"])
    with pytest.raises(DataError, match="no word occurs 5 times"):
        fitted(LatentDirichletAllocation(), ["rare words", "other ones"])
    with pytest.raises(DataError, match="a text is a str or a list of words; got None"):
        fitted(LatentDirichletAllocation(), pd.DataFrame({"text": [None, None]}), "text")
    with pytest.raises(DataError, match="X is a list of texts; got one text, 'a text'"):
        LatentDirichletAllocation().transform("a text")
    with pytest.raises(RunError, match="has not learned anything yet"):
        LatentDirichletAllocation().topics()
    with pytest.raises(RunError, match="has not learned anything yet"):
        LatentDirichletAllocation().perplexity(["a text"])


def test_a_sweep_keeps_the_counts_in_step_with_the_topics() -> None:
    chance = np.random.default_rng(1)
    starts, words = np.array([0, 30, 30, 80]), chance.integers(0, 6, 80)
    topics, counts, totals = np.full(80, -1, np.int32), np.zeros((6, 3), np.float32), np.zeros(3)
    for _ in range(3):
        score = sample_topics(starts, words, topics, counts, totals, chance.random(80), 0.1, 0.1, 6, False)
        expected = np.zeros((6, 3))
        np.add.at(expected, (words, topics), 1)
        np.testing.assert_array_equal(counts, expected)
        np.testing.assert_array_equal(totals, expected.sum(axis=0))
        assert score < 0
    topics[:] = -1  # forgotten, but counted
    sample_topics(starts, words, topics, counts, totals, chance.random(80), 0.1, 0.1, 6, True)
    np.testing.assert_array_equal(counts, expected)
    assert topics.min() >= 0


def test_shares_are_the_mode_of_the_posterior() -> None:
    probabilities = np.array([[0.8, 0.1], [0.2, 0.9]])
    words = np.array([0, 0, 1])
    found = topic_shares(np.array([0, 3, 3]), words, probabilities, 0.5, 1000, 1e-12)
    grid = np.linspace(0.001, 0.999, 9981)
    mixed = grid[:, None] * probabilities[words, 0] + (1 - grid[:, None]) * probabilities[words, 1]
    posterior = np.log(mixed).sum(axis=1) + 0.5 * (np.log(grid) + np.log(1 - grid))
    assert found[0, 0] == pytest.approx(grid[posterior.argmax()], abs=2e-4)
    np.testing.assert_array_equal(found[1], [0.5, 0.5])
