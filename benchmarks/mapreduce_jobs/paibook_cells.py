"""paibook: the cells a user would write, run through a session as the notebook runs them."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.mapreduce_jobs.serving import serve, workers
from paibook.plan import Plan
from paibook.program import Program
from paibook.session import Session

TF_IDF = """
import math, re
from collections import Counter

def map(record):
    id = record["id"]
    for word, count in Counter(re.findall(r"\\w+", record["text"].lower())).items():
        yield word, (id, count)

def reduce(word, found):
    idf = math.log(hp.documents / len(found))
    for id, count in found:
        yield {"word": word, "id": id, "weight": count * idf}
"""

WORD_COUNT = """
import re
from collections import Counter

def map(record):
    return Counter(re.findall(r"\\w+", record["text"].lower())).items()

def combine(word, counts):
    yield word, sum(counts)

def reduce(word, counts):
    yield {"word": word, "n": sum(counts)}
"""

GROUP_TEXTS = """
def map(line):
    name, number = line.split("\\t")
    yield name, int(number)

def combine(name, numbers):
    yield name, sum(numbers)

def reduce(name, numbers):
    yield {"word": name, "n": sum(numbers)}
"""

GROUP_INTEGERS = """
import pyarrow as pa

def map(rows: pa.Table) -> pa.Table:
    return rows

reduce = pai.Sum()
"""


def main() -> None:
    """Start the embedded cluster and serve."""
    os.environ["PAIBOOK_WORKERS"] = str(workers())
    session = Session()
    session.cluster.start()
    session.cluster.tasks()

    def job(source: str, **more: Any) -> Any:
        def run(files: list[str], out: str, **hyperparameters: Any) -> None:
            options = {"inputs": files, "out": out + ".parquet", "out_kind": "path", **more}
            plan = Plan(
                "mapreduce",
                Program(source, "cell"),
                cluster=session.cluster.reference,
                options=options,
                hyperparameters=hyperparameters,
            )
            session.run(plan).result()

        return run

    serve(
        {
            "tf_idf": job(TF_IDF),
            "word_count": job(WORD_COUNT),
            "group_texts": job(GROUP_TEXTS, format="text"),
            "group_integers": job(GROUP_INTEGERS, key=["key"]),
        }
    )
    session.close()


if __name__ == "__main__":
    main()
