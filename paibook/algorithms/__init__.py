"""Algorithms ready to call, each a MapReduce cell that is short enough to learn from.

``pai.algorithms.tf_idf("docs/*.jsonl", out="tfidf.parquet", stop_words="english")`` runs one on the notebook's cluster;
``print(pai.algorithms.source("tf_idf"))`` shows its cell.
"""

from __future__ import annotations

from paibook.algorithms.cells import count, names, source
from paibook.algorithms.clustering import KMeans, k_means, k_means_step
from paibook.algorithms.statistics import cleaning_report, histogram, quantiles
from paibook.algorithms.tables import distinct, join, sample
from paibook.algorithms.text import inverted_index, stop_words_of, tf_idf, word_count

__all__ = [
    "KMeans",
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
    "word_count",
]
