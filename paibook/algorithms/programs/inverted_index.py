"""Inverted index: for each word the documents it occurs in, and where; what a search engine looks words up in.

Hyperparameters: ``id``, ``text`` (columns), ``token``, ``lowercase``, ``stop_words``. Positions count words from 0,
stop words included, so that neighbours can be told from words that merely share a document.
"""

import re
from collections import defaultdict

TOKEN = re.compile(hp.token)
STOP_WORDS = frozenset(hp.stop_words)


def map(record):
    text = record[hp.text]
    positions = defaultdict(list)
    for position, word in enumerate(TOKEN.findall(text.lower() if hp.lowercase else text)):
        if word not in STOP_WORDS:
            positions[word].append(position)
    for word, where in positions.items():
        yield word, (record[hp.id], where)


def order(posting):
    return posting[0]


def reduce(word, postings):
    found = [{"id": document, "positions": where} for document, where in postings]
    yield {"word": word, "documents": len(found), "postings": found}
