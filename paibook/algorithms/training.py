"""Estimators trained from the notebook: the cell that does it, run on the notebook's cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paibook import session as sessions
from paibook.algorithms.cells import is_path
from paibook.errors import PlanError
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

ALLREDUCE = """
_rows = pai.shard(_training["source"], format=_training["format"])
_trained = _training["estimator"].fit(_rows, **_training["labels"])
del _rows, _training
"""
PS = """
def train(ps):
    import copy

    estimator = copy.copy(_training["estimator"])  # ranks may be threads
    rows = pai.shard(_training["source"], format=_training["format"])
    return estimator.fit(rows, **_training["labels"], ps=ps).without_weights()
"""
CONSISTENCY = {"consistency": "bsp", "staleness": 1, "until": None}


def train(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    format: str | None = None,
    workers: int = 0,
    session: Session | None = None,
    **ps: Any,
) -> Any:
    """Fit an estimator on the ranks of the notebook's cluster, each on its shard; an interrupt stops it.

    ``model = pai.algorithms.train(pai.LogisticRegression(C=10), "a9a.libsvm", workers=4)``
    ``model = pai.algorithms.train(pai.FTRLLogisticRegression(l1=2), X, y, workers=4, servers=2, consistency="asp")``

    Args:
        estimator: One of ``paibook.algorithms.estimators`` or ``paibook.algorithms.ps``; it stays as it is.
        X: Files, as for ``pai.shard``, of which each rank reads its part; or rows, which are sent to all ranks.
        y: Labels beside rows; or the name of a column; None where there are none, or X is LIBSVM files.
        format: Of files.
        workers: Ranks; as many as the cluster has workers where 0.
        session: Whose cluster does the work; the notebook's by default.
        ps: For estimators on the parameter server, as the options of ``%%pai_ps``: ``servers`` (1), ``consistency``
            (``"bsp"``), ``staleness`` (1), ``until``.

    Returns:
        The estimator that the ranks trained.

    Raises:
        UserCodeError: What ``fit`` raised on a rank (on the inline cluster that error itself).
        PlanError, RunError, RunCancelled: As the cell does.
    """
    used = session or sessions.current()
    on_servers = getattr(estimator, "runtime", "allreduce") == "ps"
    servers, options = _ps_options(estimator, ps, on_servers)
    labels = {"y": y} if isinstance(y, str) else {}
    source = X if y is None or labels else _beside(X, y)
    training = {"estimator": estimator, "source": _absolute(source), "labels": labels, "format": format}
    plan = Plan(
        runtime="ps" if on_servers else "allreduce",
        program=Program((PS if on_servers else ALLREDUCE).strip(), "<pai.algorithms.train>"),
        resources=Resources(workers=workers, servers=servers),
        cluster=used.cluster.reference,
        name=type(estimator).__name__,
        options=options,
        push=("_training",),
        pull=() if on_servers else ("_trained",),
    )
    started = used.run(plan, {"_training": training})
    try:
        result = started.result()
    except KeyboardInterrupt:
        started.cancel()
        raise
    if not on_servers:
        return result.pulled["_trained"]
    return result.returned[0].together(result.returned).load(result.tables)


def _ps_options(estimator: Any, given: Mapping[str, Any], on_servers: bool) -> tuple[int, dict[str, Any]]:
    """How many servers, and the options of the plan."""
    known = {"servers": 1, **CONSISTENCY} if on_servers else {}
    unknown = [name for name in given if name not in known]
    if unknown:
        name = type(estimator).__name__
        hint = f"there are {', '.join(known)}" if known else f"{name} learns by all-reduce, without servers"
        raise PlanError(f"train takes no {unknown[0]!r} here: {hint}")
    chosen = {**known, **given}
    return chosen.pop("servers", 0), chosen


def _beside(X: Any, y: Any) -> Any:
    """Rows and labels as a source that can be dealt out."""
    if isinstance(X, tuple) and len(X) == 3:
        from paibook.algorithms.ps.rows import as_table

        return as_table(*X, y)
    return X, y


def _absolute(source: Any) -> Any:
    """Local paths from the root: a rank may have another working folder."""
    if not is_path(source):
        return source
    if isinstance(source, list):
        return [path.absolute() for path in source]
    return str(source) if "://" in str(source) else str(Path(source).absolute())
