"""Classifiers whose log-odds are an intercept plus a function of the rows' own weights: one table, one loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paibook.algorithms.ps.learner import BinaryClassifier, expit, log_loss
from paibook.algorithms.ps.rows import Batch, Rows, keyed_rows, labelled
from paibook.algorithms.ps.weights import Weights
from paibook.runtimes.ps.client import ParameterServer, Table
from paibook.runtimes.ps.optimizers import Adagrad

_BLOCK = 4096  # rows predicted at a time


@dataclass(eq=False, kw_only=True)
class AdditiveClassifier(BinaryClassifier):
    """The loop of all of them: pull the batch's keys, compute, push.

    Args:
        optimizer: What the servers do with a gradient, the mean over all workers' batches.
    """

    optimizer: Any = field(default_factory=lambda: Adagrad(lr=0.1))

    def fit(self, X: Any, y: Any = None, *, ps: ParameterServer | None = None) -> Any:
        """Learn from this worker's samples; every worker calls it, in ``train(ps)``.

        Args:
            X: This worker's rows: what ``keyed_rows`` takes, or a pair of rows and labels.
            y: Their labels ``(n,)``, or the name of X's column; a table of LIBSVM rows has its own.
            ps: What ``train`` is given.

        Raises:
            DataError: Samples that cannot be meant, or not of two classes.
            PlanError: No ``ps``, or a hyperparameter that cannot be meant.
        """
        ps = self._begin(ps)
        rows, labels = labelled(X, y)
        sides = self._sides(labels)
        table, intercept = self._declare(ps, rows)
        for order in self._steps(ps, len(rows)):
            batch, wanted = rows.batch(order), sides[order]
            weights, bias = table.pull(batch.keys).astype(np.float64), intercept.pull()
            odds = self._odds(batch, weights) + bias
            residuals = expit(odds) - wanted
            scale = self._scale(len(order) * ps.world_size)
            gradient = self._gradient(batch, weights, residuals)
            table.push(batch.keys, scale * (gradient + self._penalty(batch, weights) / ps.world_size))
            intercept.push(scale * residuals.sum(keepdims=True))
            self._report(log_loss(odds, wanted))
        learned = Weights(table.pull()) if rows.width is not None else Weights(table.pull(rows.keys), rows.keys)
        self.weights_ = {table.name: learned, intercept.name: Weights(intercept.pull())}
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-odds of the second class, ``(n,)``. Keys that were in no sample count for nothing."""
        rows, weights, bias = keyed_rows(X), self._weights("weights"), self._weights("intercept").rows
        odds = [self._odds(batch, weights.take(batch.keys).astype(np.float64)) for batch in _blocks(rows)]
        return np.concatenate([np.zeros(0), *odds]) + bias

    def _declare(self, ps: ParameterServer, rows: Rows) -> tuple[Table, Table]:
        name, (width, init) = self._named("weights"), self._row()
        if rows.width is None:
            table = ps.table(name, sparse=True, width=width, optimizer=self.optimizer, init=init)
        else:
            table = ps.table(name, shape=(rows.width, width), optimizer=self.optimizer, init=init)
        return table, ps.table(self._named("intercept"), shape=1, optimizer=self._intercept_optimizer())

    def _table_names(self) -> list[str]:
        return [self._named("weights"), self._named("intercept")]

    def _intercept_optimizer(self) -> Any:
        return self.optimizer

    def _scale(self, samples: int) -> float:
        """What sums over a batch are multiplied by, of ``samples`` of all workers in a clock."""
        return 1 / samples

    def _row(self) -> tuple[int, Any]:
        """Numbers for each key, and how they begin."""
        raise NotImplementedError

    def _odds(self, batch: Batch, weights: np.ndarray) -> np.ndarray:
        """Log-odds of the batch's rows, less the intercept, ``(n,)``; weights are those of its keys, ``(u, width)``."""
        raise NotImplementedError

    def _gradient(self, batch: Batch, weights: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        """Of the sum of ``residuals * odds``, by the weights, ``(u, width)``."""
        raise NotImplementedError

    def _penalty(self, batch: Batch, weights: np.ndarray) -> np.ndarray | float:
        """The batch's part of the penalty's gradient; the parts of an epoch add up to all of it."""
        return 0.0


def _blocks(rows: Rows) -> Iterator[Batch]:
    for start in range(0, len(rows), _BLOCK):
        yield rows.batch(np.arange(start, min(start + _BLOCK, len(rows))))
