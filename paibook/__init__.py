"""paibook: distributed machine learning from a notebook.

In a notebook: ``%load_ext paibook``, then ``%%pai_mapreduce``, ``%%pai_allreduce`` or ``%%pai_ps``. The names below are
what a cell's own code uses, as ``import paibook as pai``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from paibook.errors import PaibookError
from paibook.metrics import log

if TYPE_CHECKING:
    from paibook.hyperparameters import HyperParameters

__version__ = "0.1.0"
__all__ = ["HyperParameters", "PaibookError", "__version__", "log"]

# Imported when a cell first uses them: every rank and worker imports paibook, and most need none of these.
_LAZY = {
    "HyperParameters": "paibook.hyperparameters",
    "DetachedRun": "paibook.detached.handle",
    "compare": "paibook.widgets.plot",
    "between": "paibook.hyperparameters",
    "choice": "paibook.hyperparameters",
    "search": "paibook.studies",
    "shard": "paibook.runtimes.shards",
    "LogisticRegression": "paibook.algorithms.estimators",
    "SoftmaxRegression": "paibook.algorithms.estimators",
    "LinearRegression": "paibook.algorithms.estimators",
    "Ridge": "paibook.algorithms.estimators",
    "KMeans": "paibook.algorithms.estimators",
    "PCA": "paibook.algorithms.estimators",
    "fit": "paibook.algorithms.estimators.ddp",
    "SGDLogisticRegression": "paibook.algorithms.ps",
    "FTRLLogisticRegression": "paibook.algorithms.ps",
    "FactorizationMachine": "paibook.algorithms.ps",
    "FieldAwareFactorizationMachine": "paibook.algorithms.ps",
    "LatentDirichletAllocation": "paibook.algorithms.ps",
    "MatrixFactorization": "paibook.algorithms.ps",
    "Word2Vec": "paibook.algorithms.ps",
    "WideAndDeep": "paibook.algorithms.ps.deep",
    "DeepFM": "paibook.algorithms.ps.deep",
    "Embedding": "paibook.algorithms.ps.embedding",
    "state": "paibook.runtimes.allreduce.state",
    "SGD": "paibook.runtimes.ps.optimizers",
    "Momentum": "paibook.runtimes.ps.optimizers",
    "Adagrad": "paibook.runtimes.ps.optimizers",
    "RMSProp": "paibook.runtimes.ps.optimizers",
    "Adam": "paibook.runtimes.ps.optimizers",
    "LazyAdam": "paibook.runtimes.ps.optimizers",
    "AdaDelta": "paibook.runtimes.ps.optimizers",
    "FTRL": "paibook.runtimes.ps.optimizers",
    "ByCount": "paibook.runtimes.ps.admission",
    "ByProbability": "paibook.runtimes.ps.admission",
    "Constant": "paibook.runtimes.ps.initializers",
    "Normal": "paibook.runtimes.ps.initializers",
    "Uniform": "paibook.runtimes.ps.initializers",
    "TopKFilter": "paibook.runtimes.ps.error_feedback",
    "GradientReducer": "paibook.comms.gradients",
    "TopKState": "paibook.comms.ddp_hooks",
    "topk_hook": "paibook.comms.ddp_hooks",
    "counter": "paibook.runtimes.mapreduce.task",
    "output": "paibook.runtimes.mapreduce.task",
    "resource": "paibook.runtimes.mapreduce.task",
    "task": "paibook.runtimes.mapreduce.task",
    "Sum": "paibook.runtimes.mapreduce.reducers",
    "Count": "paibook.runtimes.mapreduce.reducers",
    "Min": "paibook.runtimes.mapreduce.reducers",
    "Max": "paibook.runtimes.mapreduce.reducers",
    "Mean": "paibook.runtimes.mapreduce.reducers",
    "TopK": "paibook.runtimes.mapreduce.reducers",
    "Distinct": "paibook.runtimes.mapreduce.reducers",
    "CountDistinct": "paibook.runtimes.mapreduce.reducers",
}
_RENAMED = {"task": "current"}
_MODULES = {"algorithms": "paibook.algorithms", "MPI": "paibook.comms.mpi"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _LAZY:
        raise AttributeError(f"module 'paibook' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), _RENAMED.get(name, name))


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, *_MODULES])


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext paibook``: the one import upward, made only when a notebook asks for it."""
    from paibook_magics import load_ipython_extension as load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext paibook``: ends the session's clusters."""
    from paibook_magics import unload_ipython_extension as unload

    unload(shell)
