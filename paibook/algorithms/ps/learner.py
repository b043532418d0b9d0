"""What estimators on the parameter server share: batches that end a clock each, and the weights afterwards."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from paibook.algorithms.ps.weights import Weights
from paibook.errors import DataError, PlanError, RunError
from paibook.metrics import log
from paibook.runtimes.ps.client import ParameterServer

Self = TypeVar("Self", bound="Learner")


@dataclass(eq=False, kw_only=True)
class Learner:
    """An object with hyperparameters that learns in ``train(ps)``; what it learned ends with an underscore.

    Args:
        epochs: Passes of each worker over its rows.
        batch_size: Samples of one pull and push; a clock ends after each.
        seed: Of the order of samples, and of initial weights.
        name: Led by which its tables are called; for several estimators in one cell.
    """

    runtime: ClassVar[str] = "ps"

    epochs: int = 5
    batch_size: int = 256
    seed: int = 0
    name: str = ""

    def fit(self: Self, X: Any, y: Any = None, *, ps: ParameterServer | None = None) -> Self:
        """Learn from this worker's samples; every worker calls it."""
        raise NotImplementedError

    def load(self: Self, tables: Mapping[str, Any]) -> Self:
        """Take the weights of a finished run: ``model.load(run.tables)``, the last word of all workers.

        Raises:
            RunError: It has none of this estimator's.
        """
        missing = [name for name in self._table_names() if name not in tables]
        if missing:
            raise RunError(f"the run has no table {missing[0]!r}; it has {', '.join(tables) or 'none'}")
        self.weights_ = {name: Weights.of_result(tables[name]) for name in self._table_names()}
        return self

    def without_weights(self: Self) -> Self:
        """A copy that knows what is not on the servers alone: for the way to the notebook."""
        bare = copy.copy(self)
        bare.weights_ = {}
        return bare

    def together(self: Self, workers: Sequence[Self]) -> Self:
        """One estimator out of those of all workers; the weights come by ``load``."""
        return workers[0]

    def _table_names(self) -> list[str]:
        """The full names of its tables."""
        raise NotImplementedError

    def _named(self, name: str) -> str:
        return f"{self.name}{name}"

    def _weights(self, name: str) -> Weights:
        if not getattr(self, "weights_", None):
            raise RunError(f"this {type(self).__name__} has not learned anything yet: call fit first")
        return self.weights_[self._named(name)]

    def _steps(self, ps: ParameterServer, samples: int) -> Iterator[np.ndarray]:
        """The numbers of the samples of each step, and a clock's end after it; ends early where the run does.

        They are a function of the clock, so that a worker which begins at a later one does what was left to do.
        """
        steps = -(-samples // self.batch_size)
        shuffled = (-1, np.zeros(0, np.int64))  # an epoch and its order
        for clock in ps.clocks(self.epochs * steps):
            epoch, place = divmod(clock, steps)
            if epoch != shuffled[0]:
                shuffled = epoch, np.random.default_rng([self.seed, epoch, ps.rank]).permutation(samples)
            self._step = clock
            yield shuffled[1][place * self.batch_size : (place + 1) * self.batch_size]

    def _begin(self, ps: ParameterServer | None) -> ParameterServer:
        """Check what all have, before anything is declared."""
        if ps is None:
            name = type(self).__name__
            raise PlanError(
                f"{name} learns on a parameter server: call fit(X, y, ps=ps) in train(ps) of a %%pai_ps cell, "
                f"or pai.algorithms.train(pai.{name}(...), X, y) in the notebook"
            )
        for field in ("epochs", "batch_size"):
            value = getattr(self, field)
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise PlanError(f"{type(self).__name__}({field}=...) is a whole number, 1 or more; got {value!r}")
        self._step = 0
        return ps

    def _report(self, loss: float) -> None:
        self._step += 1
        log(step=self._step, loss=loss)


@dataclass(eq=False, kw_only=True)
class BinaryClassifier(Learner):
    """A learner of two classes.

    Args:
        classes: The two labels; those of this worker's samples where None.
    """

    classes: Sequence[Any] | None = None

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-odds of the second class, ``(n,)``."""
        raise NotImplementedError

    def predict(self, X: Any) -> np.ndarray:
        """The likelier class of each row, ``(n,)``."""
        second = (self.decision_function(X) > 0).astype(int)
        if not len(self.classes_):
            raise RunError("the worker that this model is from had no samples, so it knows no classes; give classes=")
        found: np.ndarray = self.classes_[second]
        return found

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of both classes, ``(n, 2)``, in the order of ``classes_``."""
        second = expit(self.decision_function(X))
        return np.stack([1 - second, second], axis=1)

    def score(self, X: Any, y: Any) -> float:
        """The accuracy on these rows."""
        return float(np.mean(self.predict(X) == np.asarray(y)))

    def together(self: Self, workers: Sequence[Self]) -> Self:
        """As for any; refuses workers that told other classes apart.

        Raises:
            DataError: Naming a worker and its classes.
        """
        known: list[list[Any]] = [worker.classes_.tolist() for worker in workers]  # type: ignore[attr-defined]
        first = next((rank for rank, classes in enumerate(known) if classes), 0)  # others had no samples
        for rank, classes in enumerate(known):
            if classes and classes != known[first]:
                raise DataError(
                    f"worker {first} has the classes {known[first]}, worker {rank} {classes}; give classes="
                )
        return super().together(workers[first:])

    def _sides(self, y: np.ndarray) -> np.ndarray:
        """0.0 or 1.0 for each label; the labels become ``classes_``."""
        self.classes_ = np.unique(y if self.classes is None else np.asarray(self.classes))
        if self.classes is None and not len(y):
            return np.zeros(0)
        if len(self.classes_) != 2:
            shown = ", ".join(map(str, self.classes_[:5].tolist())) or "none"
            raise DataError(
                f"{type(self).__name__} tells two classes apart; these samples hold {len(self.classes_)}: {shown}. "
                "Where a worker may see one class only, give classes=(0, 1)"
            )
        unknown = y[~np.isin(y, self.classes_)].tolist()
        if unknown:
            raise DataError(f"y holds {unknown[0]!r}, which is none of the classes {self.classes_.tolist()}")
        return (y == self.classes_[1]).astype(np.float64)


def expit(odds: np.ndarray) -> np.ndarray:
    """The logistic function, ``1 / (1 + exp(-odds))``, without overflow."""
    return (1 + np.tanh(odds / 2)) / 2


def log_loss(odds: np.ndarray, sides: np.ndarray) -> float:
    """The mean of ``-log P(side)``."""
    return float(np.mean(np.logaddexp(0, odds) - sides * odds))
