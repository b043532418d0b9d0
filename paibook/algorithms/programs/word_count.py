"""Word count: how often each word occurs.

Hyperparameters: ``text`` (column of the text; a record that is text itself needs none), ``token`` (regular expression
of a word), ``lowercase``, ``stop_words`` (words left out).
"""

import re

TOKEN = re.compile(hp.token)
STOP_WORDS = frozenset(hp.stop_words)


def map(record):
    text = record if isinstance(record, str) else record[hp.text]
    for word in TOKEN.findall(text.lower() if hp.lowercase else text):
        if word not in STOP_WORDS:
            yield word, 1


def combine(word, counts):
    yield word, sum(counts)


def reduce(word, counts):
    yield {"word": word, "count": sum(counts)}
