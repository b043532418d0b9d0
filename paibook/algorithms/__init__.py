"""Algorithms ready to call, short enough to learn from: MapReduce cells, and estimators for other cells.

``pai.algorithms.tf_idf("docs/*.jsonl", out="tfidf.parquet", stop_words="english")`` runs one on the notebook's cluster;
``print(pai.algorithms.source("tf_idf"))`` shows its cell.
``pai.LogisticRegression(C=10).fit(pai.shard("a9a.libsvm"))`` in a ``%%pai_allreduce`` cell trains on all ranks' shards,
``pai.FTRLLogisticRegression().fit(pai.shard("a9a.libsvm"), ps=ps)`` in ``train(ps)`` of a ``%%pai_ps`` cell on servers.
"""

from __future__ import annotations

from paibook.algorithms.cells import count, names, source
from paibook.algorithms.clustering import Clusters, k_means, k_means_step
from paibook.algorithms.estimators import PCA, KMeans, LinearRegression, LogisticRegression, Ridge, SoftmaxRegression
from paibook.algorithms.ps import (
    FactorizationMachine,
    FieldAwareFactorizationMachine,
    FTRLLogisticRegression,
    LatentDirichletAllocation,
    MatrixFactorization,
    SGDLogisticRegression,
    Word2Vec,
)
from paibook.algorithms.statistics import cleaning_report, histogram, quantiles
from paibook.algorithms.tables import distinct, join, sample
from paibook.algorithms.text import inverted_index, stop_words_of, tf_idf, word_count
from paibook.algorithms.training import train

__all__ = [
    "PCA",
    "Clusters",
    "FTRLLogisticRegression",
    "FactorizationMachine",
    "FieldAwareFactorizationMachine",
    "KMeans",
    "LatentDirichletAllocation",
    "LinearRegression",
    "LogisticRegression",
    "MatrixFactorization",
    "Ridge",
    "SGDLogisticRegression",
    "SoftmaxRegression",
    "Word2Vec",
    "cleaning_report",
    "count",
    "distinct",
    "histogram",
    "inverted_index",
    "join",
    "k_means",
    "k_means_step",
    "names",
    "quantiles",
    "sample",
    "source",
    "stop_words_of",
    "tf_idf",
    "train",
    "word_count",
]
