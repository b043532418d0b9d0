"""Estimators trained from the notebook: the cell that does it, run on the notebook's cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paibook import session as sessions
from paibook.algorithms.cells import is_path
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

CELL = """
_rows = pai.shard(_training["source"], format=_training["format"])
_trained = _training["estimator"].fit(_rows, **_training["labels"])
del _rows, _training
"""


def train(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    format: str | None = None,
    workers: int = 0,
    session: Session | None = None,
) -> Any:
    """Fit an estimator on the ranks of the notebook's cluster, each on its shard; an interrupt stops it.

    ``model = pai.algorithms.train(pai.LogisticRegression(C=10), "a9a.libsvm", workers=4)``

    Args:
        estimator: One of ``paibook.algorithms.estimators``; it stays as it is.
        X: Files, as for ``pai.shard``, of which each rank reads its part; or rows, which are sent to all ranks.
        y: Labels beside rows; or the name of a column; None where there are none, or X is LIBSVM files.
        format: Of files.
        workers: Ranks; as many as the cluster has workers where 0.
        session: Whose cluster does the work; the notebook's by default.

    Returns:
        The estimator that the ranks trained.

    Raises:
        UserCodeError: What ``fit`` raised on a rank (on the inline cluster that error itself).
        PlanError, RunError, RunCancelled: As the cell does.
    """
    used = session or sessions.current()
    labels = {"y": y} if isinstance(y, str) else {}
    source = X if y is None or labels else (X, y)
    training = {"estimator": estimator, "source": _absolute(source), "labels": labels, "format": format}
    plan = Plan(
        runtime="allreduce",
        program=Program(CELL.strip(), "<pai.algorithms.train>"),
        resources=Resources(workers=workers),
        cluster=used.cluster.reference,
        name=type(estimator).__name__,
        push=("_training",),
        pull=("_trained",),
    )
    started = used.run(plan, {"_training": training})
    try:
        return started.result().pulled["_trained"]
    except KeyboardInterrupt:
        started.cancel()
        raise


def _absolute(source: Any) -> Any:
    """Local paths from the root: a rank may have another working folder."""
    if not is_path(source):
        return source
    if isinstance(source, list):
        return [path.absolute() for path in source]
    return str(source) if "://" in str(source) else str(Path(source).absolute())
