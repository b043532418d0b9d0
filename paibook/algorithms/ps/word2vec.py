"""Word vectors: words that occur among the same words come to lie near each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paibook.algorithms.ps.learner import expit
from paibook.algorithms.ps.rows import dealt
from paibook.algorithms.ps.texts import WordLearner, column, frequent_words, listed_words, word_keys
from paibook.algorithms.ps.weights import Weights
from paibook.errors import PlanError
from paibook.runtimes.ps.client import ParameterServer
from paibook.runtimes.ps.initializers import Uniform
from paibook.runtimes.ps.optimizers import Adagrad


@dataclass(eq=False)
class Word2Vec(WordLearner):
    """Skip-gram with negative sampling (Mikolov et al., "Distributed representations of words", NIPS 2013).

    A word's key is a hash of it, so workers need no common vocabulary. Negatives are drawn from the counts of the
    worker's own texts, to the power 3/4. A step is ``batch_size`` pairs of a word and one in its window.

    Args:
        dim: Numbers for each word.
        window: Words to each side, at most: as in the paper, each place draws how many.
        negatives: Drawn for each pair.
        min_count: Words that are rarer in a worker's texts are left out.
        subsample: The paper's t: occurrences of words more frequent than it are left out by chance; 0 keeps all.
        optimizer: What the servers do with gradients, summed over a batch.

    Attributes:
        vocabulary_: The words, sorted.
        vectors_: Of each, ``(len(vocabulary_), dim)``.
    """

    dim: int = 64
    window: int = 5
    negatives: int = 5
    min_count: int = 5
    subsample: float = 1e-3
    optimizer: Any = field(default_factory=lambda: Adagrad(lr=0.1))

    def fit(self, X: Any, y: Any = None, *, ps: ParameterServer | None = None) -> Word2Vec:
        """Learn from this worker's texts; every worker calls it, in ``train(ps)``.

        Args:
            X: Texts, cut at white space, or lists of words; or a shard of them.
            y: The column of the texts, where X is a table.
            ps: What ``train`` is given.

        Raises:
            DataError: No texts, or no word that is frequent enough.
            PlanError: No ``ps``, or a hyperparameter that cannot be meant.
        """
        ps = self._begin(ps)
        if min(self.dim, self.window, self.negatives, self.min_count) < 1 or self.subsample < 0:
            raise PlanError("Word2Vec takes dim, window, negatives and min_count of 1 or more, subsample of 0 or more")
        X, _ = dealt(X, None)
        texts = [_words(text) for text in (X if y is None else column(X, y))]
        words, counts = frequent_words(texts, self.min_count)
        numbers = {word: number for number, word in enumerate(words)}
        places = [[numbers[word] for word in text if word in numbers] for text in texts]
        keys, drawn = word_keys(words), np.cumsum(counts**0.75)
        init = Uniform(-0.5 / self.dim, 0.5 / self.dim, self.seed)
        inside = ps.table(self._named("words"), sparse=True, width=self.dim, optimizer=self.optimizer, init=init)
        around = ps.table(self._named("contexts"), sparse=True, width=self.dim, optimizer=self.optimizer)
        chance = np.random.default_rng([self.seed, ps.rank])
        for centers, contexts in self._batches(ps, places, counts, chance):
            noise = np.searchsorted(drawn / drawn[-1], chance.random((len(centers), self.negatives)), side="right")
            candidates = np.hstack([contexts[:, None], noise])  # the word that was there, then those that were not
            center, of_center = np.unique(centers, return_inverse=True)
            near, of_near = np.unique(candidates, return_inverse=True)
            of_near = of_near.reshape(candidates.shape)
            u, v = inside.pull(keys[center])[of_center], around.pull(keys[near])[of_near]
            odds = np.einsum("nd,nkd->nk", u, v)
            residuals = expit(odds)
            residuals[:, 0] -= 1
            residuals[:, 1:][noise == contexts[:, None]] = 0  # drew the true one
            inside.push(keys[center], _summed(np.einsum("nk,nkd->nd", residuals, v), of_center, len(center)))
            outer = residuals[:, :, None] * u[:, None, :]
            around.push(keys[near], _summed(outer.reshape(-1, self.dim), of_near.ravel(), len(near)))
            self._report(float(np.mean(np.logaddexp(0, -odds[:, 0]) + np.logaddexp(0, odds[:, 1:]).sum(axis=1))))
        order = np.argsort(keys)
        self.vocabulary_ = words
        self.weights_ = {inside.name: Weights(inside.pull(keys[order]), keys[order])}
        return self

    @property
    def vectors_(self) -> np.ndarray:
        """The words' vectors, in the order of ``vocabulary_``."""
        return self._weights("words").take(word_keys(self.vocabulary_))

    def __getitem__(self, word: str) -> np.ndarray:
        """A word's vector, ``(dim,)``.

        Raises:
            KeyError: It has none.
        """
        if word not in self.vocabulary_:
            raise KeyError(word)
        found: np.ndarray = self._weights("words").take(word_keys([word]))[0]
        return found

    def most_similar(self, word: str, n: int = 10) -> list[tuple[str, float]]:
        """The n words whose vectors point most nearly the same way, with the cosines."""
        vectors, own = self.vectors_, self[word]
        cosines = vectors @ own / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(own) + 1e-12)
        best = np.argsort(-cosines)[: n + 1]
        return [(self.vocabulary_[i], float(cosines[i])) for i in best if self.vocabulary_[i] != word][:n]

    def _table_names(self) -> list[str]:
        return [self._named("words")]

    def _batches(
        self, ps: ParameterServer, texts: list[list[int]], counts: np.ndarray, chance: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of a word and one in its window, some at a time; a clock ends after each."""
        shares = counts / counts.sum()
        kept = np.minimum(1.0, np.sqrt(self.subsample / shares)) if self.subsample else np.ones(len(shares))
        flat = np.array([word for text in texts for word in text], np.int64)
        owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        for _ in range(self.epochs):
            left = chance.random(len(flat)) < kept[flat]
            pairs = _pairs(flat[left], owner[left], chance.integers(1, self.window + 1, left.sum()))
            pairs = pairs[chance.permutation(len(pairs))]
            for start in range(0, len(pairs), self.batch_size):
                yield pairs[start : start + self.batch_size, 0], pairs[start : start + self.batch_size, 1]
                if not ps.clock():
                    return


def _words(text: Any) -> list[str]:
    return text.split() if isinstance(text, str) else listed_words(text)


def _pairs(words: np.ndarray, owner: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """(word, neighbour) wherever they are in one text and the neighbour is within the word's own reach, ``(m, 2)``."""
    found = []
    for distance in range(1, int(reach.max(initial=0)) + 1):
        first, second = np.arange(len(words) - distance), np.arange(distance, len(words))
        same = owner[first] == owner[second]
        for word, neighbour in ((first, second), (second, first)):
            chosen = same & (reach[word] >= distance)
            found.append(np.stack([words[word[chosen]], words[neighbour[chosen]]], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def _summed(rows: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    total = np.zeros((count, rows.shape[1]))
    np.add.at(total, owner, rows)
    return total
