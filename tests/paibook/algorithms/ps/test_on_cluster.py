"""Estimators on servers and workers that are processes, on real data."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_svmlight_file
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import paibook as pai
from paibook.algorithms import train
from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

pytestmark = pytest.mark.slow

DATA = Path(os.environ.get("PAIBOOK_DATA", Path(__file__).resolve().parents[5] / "shared" / "data"))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    made = Session("embedded", RunHistory(tmp_path_factory.mktemp("history")))
    yield made
    made.close()


def found(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in {DATA}; set PAIBOOK_DATA to the folder that holds it")
    return DATA / name


@pytest.fixture(scope="module")
def a9a(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, np.ndarray]:
    """A file to train on, and the test rows with their labels."""
    train_file = tmp_path_factory.mktemp("a9a") / "a9a.libsvm"
    train_file.write_bytes(gzip.decompress(found("a9a.gz").read_bytes()))
    X, y = load_svmlight_file(str(found("a9a.t.gz")), zero_based=True, n_features=124)  # keys as they are in the file
    return str(train_file), X, y


@pytest.mark.parametrize(
    ("estimator", "options"),
    [
        (pai.SGDLogisticRegression(), {}),
        (pai.FTRLLogisticRegression(), {}),
        (pai.FTRLLogisticRegression(), {"consistency": "ssp", "staleness": 4}),
        (pai.FactorizationMachine(l2=5.0, optimizer=pai.Adagrad(0.05)), {"consistency": "asp"}),
    ],
    ids=["sgd", "ftrl", "ftrl-ssp", "fm-asp"],
)
def test_a9a_by_file(session: Session, a9a: Any, estimator: Any, options: Any) -> None:
    file, X, y = a9a
    model = train(estimator, file, workers=2, servers=2, session=session, **options)
    assert roc_auc_score(y, model.decision_function(X)) >= 0.902
    assert model.score(X, y) > 0.848


def test_words_and_pairs_of_words_of_reuters(session: Session) -> None:
    with gzip.open(found("reuters21578.jsonl.gz")) as lines:
        documents = [json.loads(line) for line in lines]
    parts = {kind: [one for one in documents if one["split"] == kind] for kind in ("TRAIN", "TEST")}
    texts = {kind: [f"{one['title'] or ''} {one['text'] or ''}" for one in part] for kind, part in parts.items()}
    labels = {kind: np.array(["earn" in one["topics"] for one in part]) for kind, part in parts.items()}
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    X, x = vectorizer.fit_transform(texts["TRAIN"]), vectorizer.transform(texts["TEST"])
    assert X.shape[1] > 500_000
    theirs = LogisticRegression(solver="liblinear").fit(X, labels["TRAIN"]).score(x, labels["TEST"])
    model = train(pai.SGDLogisticRegression(optimizer=pai.Adagrad(0.2)), X, labels["TRAIN"], workers=2, session=session)
    assert model.score(x, labels["TEST"]) >= theirs - 0.002


def test_a_deep_one_on_processes(session: Session) -> None:
    pytest.importorskip("torch")
    chance = np.random.default_rng(0)
    X = chance.integers(0, 4, (2000, 3))
    model = train(pai.DeepFM(epochs=10), X, X[:, 0] == X[:, 1], workers=2, servers=2, session=session)
    assert model.score(X, X[:, 0] == X[:, 1]) > 0.95


def newsgroups(part: str, count: int) -> list[str]:
    """Posts without their headers, evenly from all groups."""
    with gzip.open(found(f"20news-{part}.jsonl.gz")) as lines:
        posts = [json.loads(line)["text"].partition("\n\n")[2] for line in lines]
    return posts[:: len(posts) // count][:count]


def test_topics_of_newsgroups(session: Session) -> None:
    vectorizer = CountVectorizer(stop_words="english", min_df=5)
    X = vectorizer.fit_transform(newsgroups("train", 1200))
    cut, known = vectorizer.build_analyzer(), vectorizer.vocabulary_
    texts, unseen = (
        [[word for word in cut(post) if word in known] for post in newsgroups(part, count)]
        for part, count in (("train", 1200), ("test", 400))
    )
    model = pai.LatentDirichletAllocation(20, min_count=1)
    ours = train(model, texts, workers=2, servers=2, session=session).perplexity(unseen)
    peer = LatentDirichletAllocation(20, random_state=0).fit(X)
    first, second = (vectorizer.transform([" ".join(text[half::2]) for text in unseen]).tocoo() for half in (0, 1))
    words = peer.components_ / peer.components_.sum(axis=1, keepdims=True)
    expected = np.einsum("ik,ki->i", peer.transform(first)[second.row], words[:, second.col])
    theirs = np.exp(-np.sum(second.data * np.log(expected)) / second.data.sum())
    assert ours < 1.05 * theirs


KILLED = """
import os

class Topics(pai.LatentDirichletAllocation):
    def _report(self, loss):
        super()._report(loss)
        if deadly and self._step == 25:
            try:
                open(marker, "x").close()
            except FileExistsError:
                return
            os._exit(7)

def train(ps):
    return Topics(4, min_count=1, epochs=10, batch_size=20).fit(pai.shard(texts), ps=ps).components_
"""


def test_topics_survive_the_death_of_a_worker(session: Session, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    texts = [[f"w{word + 10 * (text % 4)}" for word in chance.integers(0, 10, 30)] for text in range(200)]
    tables = []
    for deadly in (False, True):
        pushed = {"texts": texts, "deadly": deadly, "marker": str(tmp_path / "killed")}
        program, resources = Program(KILLED.strip(), "<cell>"), Resources(workers=2, servers=2)
        plan = Plan("ps", program, resources, cluster=session.cluster.reference, push=tuple(pushed))
        tables.append(session.run(plan, pushed).result().tables["words"])
    assert (tmp_path / "killed").exists()
    for calm, eventful in zip(*tables, strict=True):
        np.testing.assert_array_equal(calm, eventful)
