"""Matrix factorisation: what users and items have in common, out of some of the ratings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paibook.algorithms.estimators.samples import checked_labels, parted
from paibook.algorithms.ps.learner import Learner
from paibook.algorithms.ps.rows import dealt
from paibook.algorithms.ps.weights import Weights
from paibook.errors import DataError
from paibook.runtimes.ps.client import ParameterServer, Table
from paibook.runtimes.ps.initializers import Normal
from paibook.runtimes.ps.optimizers import SGD, Adagrad


@dataclass(eq=False)
class MatrixFactorization(Learner):
    """Biased matrix factorisation (Koren, Bell and Volinsky, "Matrix factorization techniques", Computer 42, 2009).

    A rating is ``mean + user's bias + item's bias + user's factors @ item's factors``. The objective is the squared
    error plus, for each rating, ``l2`` times the squared norms of its user's and its item's numbers.

    Args:
        factors: Numbers for each user and item, beside the bias.
        l2: Strength of the penalty.
        optimizer: What the servers do with gradients, summed over a batch.
        init_scale: Standard deviation of the first factors.
    """

    factors: int = 16
    l2: float = 0.02
    optimizer: Any = field(default_factory=lambda: Adagrad(lr=0.1))
    init_scale: float = 0.1

    def fit(self, X: Any, y: Any = None, *, ps: ParameterServer | None = None) -> MatrixFactorization:
        """Learn from this worker's ratings; every worker calls it, in ``train(ps)``.

        Args:
            X: A user and an item for each rating, any int64, ``(n, 2)``; or a pair ``(X, y)``, a table, or a shard.
            y: The ratings, ``(n,)``; or the name of the table's column that holds them.
            ps: What ``train`` is given.

        Raises:
            DataError: Not such pairs, or ratings that are not one number for each.
            PlanError: No ``ps``, or a hyperparameter that cannot be meant.
        """
        ps = self._begin(ps)
        X, y = parted(*dealt(X, y), labelled=True)
        pairs = _pairs(X) if len(X) else np.zeros((0, 2), np.int64)
        ratings = checked_labels(y, len(pairs)).astype(np.float64)
        mean = ps.table(self._named("mean"), shape=1, optimizer=SGD(0.2))
        users, items = (self._declare(ps, name, seed) for seed, name in enumerate(("users", "items")))
        for order in self._steps(ps, len(pairs)):
            (user, of_user), (item, of_item) = (np.unique(side, return_inverse=True) for side in pairs[order].T)
            p, q = users.pull(user)[of_user], items.pull(item)[of_item]  # a row for each rating
            errors = mean.pull() + _score(p, q) - ratings[order]
            users.push(user, self._gradient(errors, p, q, of_user, len(user)))
            items.push(item, self._gradient(errors, q, p, of_item, len(item)))
            mean.push(errors.mean(keepdims=True) / ps.world_size)
            self._report(float(np.mean(errors**2)))
        known = (np.unique(side) for side in pairs.T)
        held = {table.name: Weights(table.pull(keys), keys) for table, keys in zip((users, items), known, strict=True)}
        self.weights_ = {**held, mean.name: Weights(mean.pull())}
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Expected ratings of pairs ``(n, 2)``; a user or an item that nobody has seen is a mean one."""
        user, item = _pairs(X).T
        p, q = self._weights("users").take(user), self._weights("items").take(item)
        return self._weights("mean").rows + _score(p, q)

    def score(self, X: Any, y: Any) -> float:
        """R² of these ratings."""
        y = np.asarray(y, dtype=np.float64)
        return float(1 - np.sum((y - self.predict(X)) ** 2) / np.sum((y - y.mean()) ** 2))

    def _gradient(
        self, errors: np.ndarray, own: np.ndarray, other: np.ndarray, owner: np.ndarray, count: int
    ) -> np.ndarray:
        """Of half the objective, by the biases and factors of one side, added up by owner."""
        by_rating = errors[:, None] * np.hstack([np.ones((len(other), 1)), other[:, 1:]]) + self.l2 * own
        total = np.zeros((count, own.shape[1]))
        np.add.at(total, owner, by_rating)
        return total

    def _declare(self, ps: ParameterServer, name: str, side: int) -> Table:
        init = Normal(self.init_scale, 2 * self.seed + side)
        width = 1 + self.factors
        return ps.table(self._named(name), sparse=True, width=width, optimizer=self.optimizer, init=init)

    def _table_names(self) -> list[str]:
        return [self._named(name) for name in ("mean", "users", "items")]


def _score(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """What users and items add to the mean; column 0 is the bias."""
    found: np.ndarray = p[:, 0] + q[:, 0] + (p[:, 1:] * q[:, 1:]).sum(axis=1)
    return found


def _pairs(X: Any) -> np.ndarray:
    pairs = np.asarray(X)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise DataError(f"X has a user and an item in each row, whole numbers (n, 2); got {pairs.dtype} {pairs.shape}")
    return pairs.astype(np.int64)
