"""Inputs: from paths, globs and folders to the files they stand for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import PurePosixPath
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from paibook.data.fingerprints import Fingerprint, fingerprint_of
from paibook.data.partitions import values_of
from paibook.errors import DataError

EXTRAS = {"s3": "s3", "s3a": "s3", "oss": "oss"}  # URL protocol to the extra that brings its driver
_HDFS = (
    "hdfs:// needs Hadoop's client libraries and a Java runtime on this machine and on the workers; set JAVA_HOME, "
    "HADOOP_HOME and CLASSPATH (`hadoop classpath --glob`)"
)


@dataclass(frozen=True, slots=True)
class File:
    """One input file.

    Attributes:
        url: An absolute path, or a URL that fsspec opens.
        size: Bytes as stored.
        fingerprint: Its state when it was found.
        folders: What the folders between the input and the file say of columns: ``year=2024/`` is
            ``{"year": "2024"}``.
    """

    url: str
    size: int
    fingerprint: Fingerprint | None = None
    folders: dict[str, str | None] = field(default_factory=dict)


def find_files(pattern: str) -> list[File]:
    """The files a path, glob or folder stands for, sorted by name.

    A folder stands for the files in it at any depth, without those whose name, or whose folder's, starts with a dot
    or an underscore.

    Raises:
        DataError: Nothing is there; names the pattern and the folder it was looked for in. Or its file system cannot
            be reached, or needs an extra that is not installed.
    """
    try:
        fs, path = url_to_fs(pattern)
        found = _entries(fs, path)
        files = [file for name, info in found for file in _expand(fs, name, info)]
        missing = None if found else _nothing_found(fs, pattern, path)
    except (ValueError, ImportError, OSError) as error:
        raise DataError(f"cannot look for the input {pattern!r}: {_advised(pattern, error)}") from error
    except Exception as error:  # of a remote file system's library, each of which has errors of its own
        if "://" not in pattern:
            raise
        raise DataError(f"cannot look for the input {pattern!r}: {error}") from error
    if missing:
        raise DataError(missing)
    if not files:
        raise DataError(f"the input {pattern!r} is a folder without files: {path}")
    return list({file.url: file for file in files}.values())


def _entries(fs: Any, path: str) -> list[tuple[str, dict[str, Any]]]:
    # A file called "a[1].txt" is itself before it is a pattern.
    if fs.exists(path):
        return [(path, fs.info(path))]
    if not has_magic(path):
        return []
    found = sorted(fs.glob(path, detail=True).items())
    # As in a shell, a star does not match names that start with a dot.
    return [entry for entry in found if "/." in path or "/." not in entry[0]]


def _expand(fs: Any, name: str, info: dict[str, Any]) -> Iterable[File]:
    if info["type"] != "directory":
        return [_file(fs, name, info)]
    root = PurePosixPath(name)
    inside = [(PurePosixPath(path).relative_to(root), path, info) for path, info in fs.find(name, detail=True).items()]
    return [
        _file(fs, path, info, values_of(below)) for below, path, info in sorted(inside, key=_path) if not _hidden(below)
    ]


def _path(entry: tuple[PurePosixPath, str, dict[str, Any]]) -> str:
    return entry[1]


def _hidden(path: PurePosixPath) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _file(fs: Any, name: str, info: dict[str, Any], folders: dict[str, str | None] | None = None) -> File:
    url = name if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(name)
    fingerprint = fingerprint_of(info)
    return File(url, fingerprint.size, fingerprint, folders or {})


def _advised(pattern: str, error: Exception) -> str:
    protocol = pattern.partition("://")[0]
    if isinstance(error, ImportError) and protocol in EXTRAS:
        return f"{error}; install with `pip install 'paibook[{EXTRAS[protocol]}]'`, for the workers too"
    return f"{error}; {_HDFS}" if protocol == "hdfs" else str(error)


def _nothing_found(fs: Any, pattern: str, path: str) -> str:
    parts = PurePosixPath(path).parts[:-1]
    fixed = next((i for i, part in enumerate(parts) if has_magic(part)), len(parts))
    folder = str(PurePosixPath(*parts[:fixed]))
    what = "no file matches" if has_magic(path) else "there is no file"
    there = "" if fs.exists(folder) else ", which does not exist"
    return f"{what} {pattern!r}; it was looked for in {folder}{there}"
