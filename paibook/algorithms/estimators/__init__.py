"""Estimators: scikit-learn's objects whose ``fit`` runs on every rank of a ``%%pai_allreduce`` cell, each on its shard.

All ranks call ``fit`` (and ``score``), and end with the same parameters; ``predict`` and ``transform`` are a rank's
own. Outside of a cell they work alone. A rank's shard may have no rows.
"""

from __future__ import annotations

from paibook.algorithms.estimators.kmeans import KMeans
from paibook.algorithms.estimators.linear import LinearRegression, Ridge
from paibook.algorithms.estimators.logistic import LogisticRegression
from paibook.algorithms.estimators.pca import PCA
from paibook.algorithms.estimators.softmax import SoftmaxRegression

__all__ = ["PCA", "KMeans", "LinearRegression", "LogisticRegression", "Ridge", "SoftmaxRegression"]
