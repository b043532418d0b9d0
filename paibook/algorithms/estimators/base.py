"""What estimators share: who talks to whom, what is logged, and rows in the form that the fit saw."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import numpy as np

from paibook.algorithms.estimators.samples import Form, local_rows, shaped
from paibook.comms.communicator import Communicator
from paibook.comms.positions import position
from paibook.errors import PlanError, RunError
from paibook.metrics import log

Self = TypeVar("Self", bound="Estimator")


class Estimator:
    """An object with hyperparameters that learns from all ranks' shards; what it learned ends with an underscore."""

    _form: Form | None = None

    @property
    def n_features_in_(self) -> int:
        """Columns of the rows it learned from."""
        return self._known().width

    def _rows(self, X: Any) -> Any:
        """Rows for a fitted estimator, as a matrix."""
        return shaped(local_rows(X), self._known())

    def _known(self) -> Form:
        if self._form is None:
            raise RunError(f"this {type(self).__name__} has not learned anything yet: call fit first")
        return self._form

    def _choose(self, name: str, *allowed: Any) -> Any:
        """A hyperparameter that must be one of some values."""
        value = getattr(self, name)
        if value not in allowed:
            raise PlanError(f"{type(self).__name__}({name}=...) is {', '.join(map(repr, allowed))}; got {value!r}")
        return value


def report(comm: Communicator, step: int, **values: float) -> None:
    """Log numbers that are equal on all ranks, once, and in cells only."""
    if comm.rank == 0 and position().comm is not None:
        log(step=step, **values)


def warn_unless(comm: Communicator, converged: bool, what: str) -> None:
    """Say once that an algorithm stopped before it was at rest."""
    if not converged and comm.rank == 0:
        warnings.warn(f"{what} stopped before it converged; allow more steps or scale the features", stacklevel=3)


def summed(comm: Communicator, array: np.ndarray) -> np.ndarray:
    """The sum of an array over all ranks."""
    total = np.array(array, dtype=np.float64, order="C")
    comm.Allreduce(comm.IN_PLACE, total)
    return total


def same(comm: Communicator, array: np.ndarray) -> np.ndarray:
    """Rank 0's array on all ranks, so that models agree to the last bit on unlike processors too."""
    shared = np.array(array, dtype=np.float64, order="C")
    comm.Bcast(shared)
    return shared
