"""TF-IDF: how much a term says about a document, for it is frequent there and rare elsewhere.

Stage 1 is grouped by term, which knows how many documents use it; stage 2 by document, which knows how long it is.
The formula is scikit-learn's (Salton and Buckley, 1988, smoothed): count * (ln((1 + n) / (1 + df)) + 1), each
document scaled to length 1.

Hyperparameters: ``id``, ``text`` (columns), ``documents`` (their number n), ``token``, ``lowercase``, ``stop_words``,
``min_documents`` (terms of fewer documents are left out), ``sublinear`` (1 + ln(count) instead of the count).
"""

import math
import re
from collections import Counter

TOKEN = re.compile(hp.token)
STOP_WORDS = frozenset(hp.stop_words)


def map(record):
    text = record[hp.text]
    words = TOKEN.findall(text.lower() if hp.lowercase else text)
    for term, count in Counter(word for word in words if word not in STOP_WORDS).items():
        yield term, (record[hp.id], count)


def reduce(term, uses):
    uses = list(uses)
    if len(uses) < hp.min_documents:
        return
    rarity = math.log((1 + hp.documents) / (1 + len(uses))) + 1
    for document, count in uses:
        frequency = 1 + math.log(count) if hp.sublinear else count
        yield document, (term, frequency * rarity)


def reduce2(document, terms):
    terms = list(terms)
    length = math.sqrt(sum(weight**2 for _, weight in terms))
    for term, weight in terms:
        yield {"id": document, "term": term, "tfidf": weight / length}
