"""Algorithms on text: word count, TF-IDF, inverted index."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from paibook.algorithms import cells
from paibook.errors import PlanError

TOKEN = r"(?u)\b\w\w+\b"  # scikit-learn's: words of two characters or more


def word_count(
    inputs: Any,
    *,
    text: str = "text",
    stop_words: str | Iterable[str] | None = None,
    token: str = TOKEN,
    lowercase: bool = True,
    **options: Any,
) -> Any:
    """Count how often each word occurs.

    Args:
        inputs: Lines of text, or records with a column ``text``.
        text: That column.
        stop_words: Words to leave out: a language such as ``"english"``, or the words.
        token: Regular expression of a word.
        lowercase: Whether letters of both cases are the same.
        options: ``out``, ``overwrite``, ``session``, ``workers``, and options of ``%%pai_mapreduce``.

    Returns:
        Columns ``word`` and ``count``; a ``Dataset`` where ``out`` is given.
    """
    return cells.run("word_count", inputs, {"text": text, **_words(stop_words, token, lowercase)}, **options)


def tf_idf(
    inputs: Any,
    *,
    text: str = "text",
    id: str = "id",
    stop_words: str | Iterable[str] | None = None,
    token: str = TOKEN,
    lowercase: bool = True,
    min_documents: int = 1,
    sublinear: bool = False,
    documents: int | None = None,
    **options: Any,
) -> Any:
    """Weigh the terms of documents as scikit-learn's ``TfidfVectorizer`` does (smoothed, each document of length 1).

    Args:
        inputs: Documents: records with the columns ``id`` and ``text``.
        text, id: Those columns; ids must differ.
        stop_words, token, lowercase: As in ``word_count``.
        min_documents: Leave out terms that fewer documents use.
        sublinear: Use 1 + ln(count) instead of the count.
        documents: How many there are; counted first where None.
        options: As in ``word_count``.

    Returns:
        Columns ``id``, ``term``, ``tfidf``, a row for each term of each document; a ``Dataset`` where ``out`` is given.
    """
    if documents is None:
        quiet = {"out", "overwrite", "partition_by"}
        documents = cells.count(inputs, **{name: value for name, value in options.items() if name not in quiet})
    hyperparameters = {"text": text, "id": id, "documents": documents, "min_documents": min_documents}
    hyperparameters |= {"sublinear": sublinear, **_words(stop_words, token, lowercase)}
    return cells.run("tf_idf", inputs, hyperparameters, **options)


def inverted_index(
    inputs: Any,
    *,
    text: str = "text",
    id: str = "id",
    stop_words: str | Iterable[str] | None = None,
    token: str = TOKEN,
    lowercase: bool = True,
    **options: Any,
) -> Any:
    """Find for each word the documents it occurs in, and where; arguments as in ``tf_idf``.

    Returns:
        Columns ``word``, ``documents`` (how many) and ``postings`` (by id: ``id`` and ``positions``, counted in words
        from 0); a ``Dataset`` where ``out`` is given.
    """
    hyperparameters = {"text": text, "id": id, **_words(stop_words, token, lowercase)}
    return cells.run("inverted_index", inputs, hyperparameters, **options)


def stop_words_of(language: str) -> list[str]:
    """The stop words of a language, from the library stop-words.

    Args:
        language: Its English name or its code, such as ``"german"`` or ``"de"``.

    Raises:
        PlanError: No list for that language (those there are get named), or the library is missing.
    """
    try:
        from stop_words import LANGUAGE_MAPPING, StopWordError, get_stop_words
    except ImportError as error:
        raise PlanError("stop words by language need a library: pip install 'paibook[algorithms]'") from error
    try:
        return sorted(get_stop_words(language.lower()))
    except StopWordError as error:
        known = ", ".join(sorted(LANGUAGE_MAPPING.values()))
        raise PlanError(
            f"there are no stop words for {language!r}; pass a list of words, or one of: {known}"
        ) from error


def _words(stop_words: str | Iterable[str] | None, token: str, lowercase: bool) -> dict[str, Any]:
    """The hyperparameters that say what a word is."""
    words = stop_words_of(stop_words) if isinstance(stop_words, str) else sorted(stop_words or ())
    return {"stop_words": words, "token": token, "lowercase": lowercase}
