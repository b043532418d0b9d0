"""Inputs: from paths, globs and folders to the files they stand for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from glob import has_magic
from pathlib import PurePosixPath
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from paibook.errors import DataError


@dataclass(frozen=True, slots=True)
class File:
    """One input file.

    Attributes:
        url: An absolute path, or a URL that fsspec opens.
        size: Bytes as stored.
    """

    url: str
    size: int


def find_files(pattern: str) -> list[File]:
    """The files a path, glob or folder stands for, sorted by name.

    A folder stands for the files in it at any depth, without those whose name, or whose folder's, starts with a dot
    or an underscore.

    Raises:
        DataError: Nothing is there; names the pattern and the folder it was looked for in.
    """
    try:
        fs, path = url_to_fs(pattern)
        found = _entries(fs, path)
    except (ValueError, ImportError, OSError) as error:
        raise DataError(f"cannot look for the input {pattern!r}: {error}") from error
    if not found:
        raise DataError(_nothing_found(fs, pattern, path))
    files = [file for name, info in found for file in _expand(fs, name, info)]
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
    inside = sorted(fs.find(name, detail=True).items())
    return [_file(fs, path, info) for path, info in inside if not _hidden(PurePosixPath(path).relative_to(root))]


def _hidden(path: PurePosixPath) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _file(fs: Any, name: str, info: dict[str, Any]) -> File:
    url = name if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(name)
    return File(url, int(info.get("size") or 0))


def _nothing_found(fs: Any, pattern: str, path: str) -> str:
    parts = PurePosixPath(path).parts[:-1]
    fixed = next((i for i, part in enumerate(parts) if has_magic(part)), len(parts))
    folder = str(PurePosixPath(*parts[:fixed]))
    what = "no file matches" if has_magic(path) else "there is no file"
    there = "" if fs.exists(folder) else ", which does not exist"
    return f"{what} {pattern!r}; it was looked for in {folder}{there}"
