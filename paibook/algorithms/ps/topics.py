"""Topics of texts: words that occur in the same texts come to belong to the same topic."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paibook.algorithms.ps.assignments import ADDS, Assignments
from paibook.algorithms.ps.gibbs import sample_topics, topic_shares
from paibook.algorithms.ps.rows import dealt
from paibook.algorithms.ps.texts import WordLearner, column, frequent_words, listed_words, word_keys
from paibook.algorithms.ps.weights import Weights
from paibook.algorithms.text import TOKEN, stop_words_of
from paibook.errors import DataError, PlanError
from paibook.runtimes.ps.client import ParameterServer

_ROUNDS, _TOLERANCE = 100, 1e-4


@dataclass(eq=False)
class LatentDirichletAllocation(WordLearner):
    """Latent Dirichlet allocation (Blei, Ng and Jordan, JMLR 3, 2003), by collapsed Gibbs sampling.

    How often a word has which topic is on the servers, and of each word of a worker's texts the topic. Workers sample a
    batch of texts against the counts that they pulled, and push the differences (Smola and Narayanamurthy, "An
    architecture for parallel topic models", VLDB 2010). A word's key is a hash of it, so workers need no common
    vocabulary.

    Args:
        n_components: Topics.
        doc_topic_prior: Of each topic in a text; 1 / n_components where None.
        topic_word_prior: Of each word in a topic; the same.
        min_count: Words that are rarer in a worker's texts are left out.
        stop_words: Words to leave out: a language such as ``"english"``, or the words.
        epochs: Times that each word's topic is drawn.
        batch_size: Texts of one pull and push.

    Attributes:
        vocabulary_: The words, sorted.
        components_: How often each has which topic, and the prior, ``(n_components, len(vocabulary_))``.
    """

    n_components: int = 10
    doc_topic_prior: float | None = None
    topic_word_prior: float | None = None
    min_count: int = 5
    stop_words: str | Iterable[str] | None = None
    epochs: int = field(default=50, kw_only=True)

    def fit(self, X: Any, y: Any = None, *, ps: ParameterServer | None = None) -> LatentDirichletAllocation:
        """Learn from this worker's texts; every worker calls it, in ``train(ps)``.

        Args:
            X: Texts, whose words are runs of two letters or more, in lower case, or lists of words; or a shard of them.
            y: The column of the texts, where X is a table.
            ps: What ``train`` is given.

        Raises:
            DataError: Not texts, or no word that is frequent enough.
            PlanError: No ``ps``, or a hyperparameter that cannot be meant.
        """
        ps = self._begin(ps)
        texts = self._worded(dealt(X, None)[0], y)
        self.vocabulary_ = frequent_words(texts, self.min_count)[0] if texts else []
        starts, words = _numbered(texts, self.vocabulary_)
        keys, size = word_keys(self.vocabulary_), len(self.vocabulary_)
        table = ps.table(self._named("words"), sparse=True, width=self.n_components, optimizer=ADDS)
        # A word has a topic 2**24 times at most before float32 cannot count on; of all words together there are more.
        overall = ps.table(self._named("topics"), shape=self.n_components, dtype="float64", optimizer=ADDS)
        assigned = Assignments(ps, self._named("assignments"), len(words), self.n_components)
        steps = -(-len(texts) // self.batch_size)
        for order in self._steps(ps, len(texts)):
            entries, ends = _entries(starts, order)
            used, rows = np.unique(words[entries], return_inverse=True)
            counts, totals = table.pull(keys[used]), overall.pull()
            before, before_all, drawn = counts.copy(), totals.copy(), assigned.take(entries)
            draws = np.random.default_rng([self.seed, self._step, ps.rank]).random(len(entries))
            # Words without topics after the first epoch were counted by a group of another size.
            counted = self._step >= steps
            score = sample_topics(ends, rows, drawn, counts, totals, draws, *self._priors(), size, counted)
            assigned.put(entries, drawn)
            added = counts - before
            moved = added.any(axis=1)
            table.push(keys[used[moved]], added[moved])
            overall.push(totals - before_all)
            self._report(-score / max(1, len(entries)))
        by_key = np.argsort(keys)
        self.weights_ = {table.name: Weights(table.pull(keys[by_key]), keys[by_key])}
        return self

    @property
    def components_(self) -> np.ndarray:
        """Topics as scikit-learn gives them, in the order of ``vocabulary_``."""
        counts = self._weights("words").take(word_keys(self.vocabulary_)).astype(np.float64)
        found: np.ndarray = np.maximum(counts, 0).T + self._priors()[1]
        return found

    def topics(self, n_words: int = 10) -> list[list[str]]:
        """The most frequent words of each topic."""
        best = np.argsort(-self.components_, axis=1, kind="stable")[:, :n_words]
        return [[self.vocabulary_[word] for word in row] for row in best]

    def transform(self, X: Any, y: Any = None) -> np.ndarray:
        """The share of each topic in each text, ``(n, n_components)``; of words that are new, nothing is known.

        Args:
            X, y: As for ``fit``.
        """
        return self._shares(*_numbered(self._worded(X, y), self.vocabulary_), self._probabilities())

    def perplexity(self, X: Any, y: Any = None) -> float:
        """How many words the model hesitates between, in texts that it has not seen; the lower the better.

        The first, third, fifth ... known word of a text say which topics it has; the others are predicted
        (*document completion*; Wallach et al., "Evaluation methods for topic models", ICML 2009, section 5.1).

        Args:
            X, y: As for ``fit``.

        Raises:
            RunError: Nothing was learned yet.
            DataError: No text has two words that the model knows.
        """
        probabilities = self._probabilities()
        starts, words = _numbered(self._worded(X, y), self.vocabulary_)
        owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        odd = (np.arange(len(words)) - starts[owner]) % 2 == 1
        if not odd.any():
            raise DataError("perplexity needs texts with two words or more that the model knows; these have none")
        halves = np.concatenate([[0], np.cumsum(np.bincount(owner[~odd], minlength=len(starts) - 1))])
        shares = self._shares(halves, words[~odd], probabilities)
        expected = np.einsum("ik,ik->i", shares[owner[odd]], probabilities[words[odd]])
        return float(np.exp(-np.mean(np.log(expected))))

    def _begin(self, ps: ParameterServer | None) -> ParameterServer:
        begun = super()._begin(ps)
        whole = all(isinstance(size, (int, np.integer)) and size > 0 for size in (self.n_components, self.min_count))
        if not whole or not min(self._priors()) > 0:
            raise PlanError(
                "LatentDirichletAllocation takes n_components and min_count, whole, of 1 or more, and priors above 0; "
                f"got n_components={self.n_components}, min_count={self.min_count}, priors {self.doc_topic_prior} "
                f"and {self.topic_word_prior}"
            )
        return begun

    def _priors(self) -> tuple[float, float]:
        given = (self.doc_topic_prior, self.topic_word_prior)
        alpha, beta = (1 / self.n_components if prior is None else float(prior) for prior in given)
        return alpha, beta

    def _probabilities(self) -> np.ndarray:
        """Of each word in each topic, ``(len(vocabulary_), n_components)``."""
        components = self.components_
        return np.ascontiguousarray((components / components.sum(axis=1, keepdims=True)).T)

    def _shares(self, starts: np.ndarray, words: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        found: np.ndarray = topic_shares(starts, words, probabilities, self._priors()[0], _ROUNDS, _TOLERANCE)
        return found

    def _worded(self, X: Any, y: Any) -> list[list[str]]:
        """The words of each text, less stop words."""
        if isinstance(X, str):
            raise DataError(f"X is a list of texts; got one text, {X!r:.80}")
        if hasattr(X, "num_columns") and not X.num_columns:  # none of the files' splits is this worker's
            return []
        left_out = frozenset(
            stop_words_of(self.stop_words) if isinstance(self.stop_words, str) else self.stop_words or ()
        )
        token = re.compile(TOKEN)
        found = []
        for text in X if y is None else column(X, y):
            words = token.findall(text.lower()) if isinstance(text, str) else listed_words(text)
            found.append([word for word in words if word not in left_out])
        return found

    def _table_names(self) -> list[str]:
        return [self._named("words")]


def _numbered(texts: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Where each text begins, and the numbers of its words; those that are not in the vocabulary are left out."""
    numbers = {word: number for number, word in enumerate(vocabulary)}
    known = [[numbers[word] for word in text if word in numbers] for text in texts]
    starts = np.cumsum([0, *map(len, known)])
    return starts, np.fromiter((word for text in known for word in text), np.int64, starts[-1])


def _entries(starts: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of the words of some texts, and where each of those texts begins among them."""
    lengths = np.diff(starts)[order]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return np.repeat(starts[order] - ends[:-1], lengths) + np.arange(ends[-1]), ends
