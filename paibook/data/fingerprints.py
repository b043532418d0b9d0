"""Fingerprints: whether a file is still the one the run was planned with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fsspec.core import url_to_fs

from paibook.errors import DataError

# What file systems call that which changes whenever a file is written, the most certain first.
_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A file's state.

    Attributes:
        size: Bytes as stored.
        version: Differs when the file was written again; empty where the file system does not tell.
    """

    size: int
    version: str = ""


def is_local(url: str) -> bool:
    """Whether a file of ``find_files`` is a path rather than a URL."""
    return "://" not in url


def fingerprint_of(info: Mapping[str, Any]) -> Fingerprint:
    """The fingerprint in what fsspec's ``info`` tells of a file."""
    version = next((info[name] for name in _VERSIONS if info.get(name)), "")
    # Some file systems tell one time as a number in listings and as a date of single files.
    if isinstance(version, datetime):
        version = version.timestamp()
    return Fingerprint(int(info.get("size") or 0), str(version))


def check_unchanged(url: str, was: Fingerprint | None) -> None:
    """Refuse a file that was written, or removed, since it was planned with; None stands for any state.

    Raises:
        DataError: Naming the file and its sizes.
    """
    if was is None:
        return
    try:
        now = _now(url)
    except FileNotFoundError as error:
        raise DataError(
            f"{url} vanished while the run was reading it (it was {was.size:,} bytes); "
            "put it back and run again on files that stay as they are"
        ) from error
    if now == was:
        return
    sizes = f"was {was.size:,} bytes, is {now.size:,}"
    if now.size == was.size:
        sizes = f"was and is {was.size:,} bytes, but it was written again"
    raise DataError(f"{url} changed while the run was reading it ({sizes}); run again on files that stay as they are")


def _now(url: str) -> Fingerprint:
    if is_local(url):
        found = os.stat(url)
        return Fingerprint(found.st_size, str(found.st_mtime))
    fs, path = url_to_fs(url)
    fs.invalidate_cache(path)
    return fingerprint_of(fs.info(path))
