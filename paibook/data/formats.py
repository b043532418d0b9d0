"""Formats: how the bytes of a file become records."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow
from fsspec.utils import infer_compression

from paibook.data.fingerprints import is_local
from paibook.errors import PlanError

FORMATS = ("text", "document", "jsonl", "csv", "tsv", "parquet", "libsvm", "binary", "image")
LINE_FORMATS = ("text", "jsonl", "libsvm")  # a record never spans a newline, so a file may be cut anywhere
DELIMITED = ("csv", "tsv")

# Pictures come as they are stored: decoding them needs a library, and is asked for with the format "image".
_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".libsvm": "libsvm",
    ".svm": "libsvm",
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".bin"), "binary"),
}


def check_format(format: str | None) -> None:
    """Refuse a format there is none of.

    Raises:
        PlanError: Listing those there are.
    """
    if format is not None and format not in FORMATS:
        raise PlanError(f"unknown input format {format!r}; there are {', '.join(FORMATS)}")


def format_of(url: str, format: str | None = None) -> str:
    """The format of a file: ``format`` where given, else by its extension; text where that says nothing.

    >>> format_of("logs/a.jsonl.gz"), format_of("README")
    ('jsonl', 'text')
    """
    return format or _BY_SUFFIX.get(suffix_of(url), "text")


def delimiter_of(url: str, format: str) -> str:
    """What parts the fields of a CSV or TSV file."""
    return "\t" if format == "tsv" or suffix_of(url) == ".tsv" else ","


def suffix_of(url: str) -> str:
    """A file's extension in lower case, a compression's own extension left out."""
    path = PurePosixPath(url)
    if compression_of(url) is not None:
        path = path.with_suffix("")
    return path.suffix.lower()


def compression_of(url: str) -> str | None:
    """The compression a file's name tells, as fsspec calls it, or None."""
    if url.lower().endswith((".zst", ".zstd")):
        return "zstd"
    compression: str | None = infer_compression(url)
    return compression


@contextmanager
def open_bytes(url: str) -> Iterator[Any]:
    """Open a file for reading as decompressed bytes."""
    compression = compression_of(url)
    if compression == "zstd":
        # By pyarrow: Python has a decoder of its own from 3.14 on only.
        with fsspec.open(url, "rb") as stored:
            stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(stored, mode="r"), "zstd")
            with io.BufferedReader(stream, 1 << 20) as file:
                yield file
    elif compression is None and is_local(url):  # the most common case, and fsspec's own way costs a small file dearly
        with open(url, "rb") as file:
            yield file
    else:
        with fsspec.open(url, "rb", compression=compression) as file:
            yield file
