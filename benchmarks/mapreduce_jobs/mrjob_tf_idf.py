"""TF-IDF as an mrjob job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mrjob.job import MRJob
from mrjob.protocol import RawValueProtocol

from benchmarks.mapreduce_jobs.words import frequencies, weights


class TfIdf(MRJob):  # type: ignore[misc]
    """(word, [document, weight]) for each word of each document."""

    INPUT_PROTOCOL = RawValueProtocol

    def configure_args(self) -> None:
        """Take the number of documents."""
        super().configure_args()
        self.add_passthru_arg("--documents", type=int)

    def mapper(self, _: None, line: str) -> Iterator[Any]:
        """As every side."""
        return frequencies(line)

    def reducer(self, word: str, found: Iterator[Any]) -> Iterator[Any]:
        """As every side."""
        words, ids, numbers = weights(word, list(found), self.options.documents)
        for row in zip(words, ids, numbers, strict=True):
            yield row[0], row[1:]


if __name__ == "__main__":
    TfIdf.run()
