"""Estimators that learn inside ``train(ps)`` of a ``%%pai_ps`` cell: the model is on the servers.

Each worker calls ``fit(X, y, ps=ps)`` with its own rows, pulls the weights that a batch of them needs, and pushes their
gradients. A fitted estimator has weights of its own and predicts anywhere.
"""

from __future__ import annotations

from paibook.algorithms.ps.factorization import FactorizationMachine, FieldAwareFactorizationMachine
from paibook.algorithms.ps.linear import FTRLLogisticRegression, SGDLogisticRegression
from paibook.algorithms.ps.ratings import MatrixFactorization
from paibook.algorithms.ps.topics import LatentDirichletAllocation
from paibook.algorithms.ps.word2vec import Word2Vec

__all__ = [
    "FTRLLogisticRegression",
    "FactorizationMachine",
    "FieldAwareFactorizationMachine",
    "LatentDirichletAllocation",
    "MatrixFactorization",
    "SGDLogisticRegression",
    "Word2Vec",
]
