"""Word count, TF-IDF and inverted index, against counting by hand and against scikit-learn."""

import gzip
import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from paibook.algorithms import inverted_index, stop_words_of, tf_idf, word_count
from paibook.errors import PlanError

NEWS = Path(__file__).parents[4] / "shared" / "data" / "20news-train.jsonl.gz"
DOCUMENTS = [
    {"id": "a", "text": "The sea, the sea and the sky"},
    {"id": "b", "text": "A sky without birds"},
    {"id": "c", "text": "Birds of the sea"},
    {"id": "d", "text": ""},
]


def test_words_are_counted_in_lines_and_in_columns(session):
    expected = {"the": 4, "sea": 3, "and": 1, "sky": 2, "without": 1, "birds": 2, "of": 1}
    for records in (DOCUMENTS, [document["text"] for document in DOCUMENTS]):
        found = word_count(records, session=session)
        assert dict(zip(found["word"], found["count"], strict=True)) == expected


def test_stop_words_and_case(session):
    found = word_count(["Sea sea the"], stop_words=["the"], lowercase=False, session=session)
    assert dict(zip(found["word"], found["count"], strict=True)) == {"Sea": 1, "sea": 1}


def test_words_of_a_file(session, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("to be\nor not to be\n")
    found = word_count(path, session=session)
    assert dict(zip(found["word"], found["count"], strict=True)) == {"to": 2, "be": 2, "or": 1, "not": 1}


@pytest.mark.parametrize("options", [{}, {"sublinear": True, "min_documents": 2, "stop_words": ["the", "sea"]}])
def test_tf_idf_is_scikit_learns(session, options):
    check_tf_idf(DOCUMENTS, session, **options)


def test_tf_idf_of_newsgroups_is_scikit_learns(session):
    if not NEWS.exists():
        pytest.skip("20 Newsgroups are not on this machine")
    with gzip.open(NEWS, "rt", encoding="utf-8") as file:
        documents = [json.loads(line) for line in islice(file, 120)]
    check_tf_idf(documents, session, stop_words=["the", "of", "to"])


def check_tf_idf(documents, session, sublinear=False, min_documents=1, stop_words=()):
    vectorizers = pytest.importorskip("sklearn.feature_extraction.text")
    vectorizer = vectorizers.TfidfVectorizer(
        sublinear_tf=sublinear, min_df=min_documents, stop_words=list(stop_words) or None
    )
    expected = vectorizer.fit_transform(document["text"] for document in documents)
    found = tf_idf(documents, sublinear=sublinear, min_documents=min_documents, stop_words=stop_words, session=session)
    rows = found["id"].map({document["id"]: row for row, document in enumerate(documents)})
    columns = found["term"].map(vectorizer.vocabulary_)
    assert len(found) == expected.nnz
    assert not found.duplicated(["id", "term"]).any()
    np.testing.assert_allclose(found["tfidf"], np.asarray(expected[rows, columns]).ravel(), rtol=1e-12)


def test_documents_in_files_are_counted_first(session, tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    ours = tf_idf(path, session=session).sort_values(["id", "term"], ignore_index=True)
    same = tf_idf(DOCUMENTS, session=session).sort_values(["id", "term"], ignore_index=True)
    assert ours.equals(same)


def test_an_index_names_documents_and_positions(session):
    found = inverted_index(DOCUMENTS, stop_words=["the"], session=session).set_index("word")
    assert list(found.loc["sea", "postings"]) == [{"id": "a", "positions": [1, 3]}, {"id": "c", "positions": [3]}]
    assert found.loc["birds", "documents"] == 2
    assert "the" not in found.index


def test_stop_words_by_language():
    pytest.importorskip("stop_words")
    assert {"the", "and", "of"} <= set(stop_words_of("english"))
    assert {"und", "der"} <= set(stop_words_of("German"))
    with pytest.raises(PlanError, match=r"'klingon'.*english"):
        stop_words_of("klingon")


def test_a_language_is_resolved_before_workers_see_it(simulated):
    pytest.importorskip("stop_words")
    found = word_count(["the sea"], stop_words="english", session=simulated)
    assert list(found["word"]) == ["sea"]
    assert Counter(simulated.plans[0].hyperparameters["stop_words"])["the"] == 1
