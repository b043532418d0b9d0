"""Formats: how the bytes of a file become records."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import fsspec
from fsspec.utils import infer_compression

from paibook.errors import PlanError

FORMATS = ("text", "document", "jsonl", "csv", "parquet")
LINE_FORMATS = ("text", "jsonl")  # a record never spans a newline, so a file may be cut anywhere

_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
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


def suffix_of(url: str) -> str:
    """A file's extension in lower case, a compression's own extension left out."""
    path = PurePosixPath(url)
    if compression_of(url) is not None:
        path = path.with_suffix("")
    return path.suffix.lower()


def compression_of(url: str) -> str | None:
    """The compression a file's name tells, as fsspec calls it, or None."""
    compression: str | None = infer_compression(url)
    return compression


def open_bytes(url: str) -> Any:
    """Open a file for reading as decompressed bytes; a context manager."""
    return fsspec.open(url, "rb", compression=compression_of(url))
