"""Bad records: those that ``--max-bad`` lets a run skip, each kept with its place and what went wrong."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paibook.errors import DataError

SHOWN = 10_000  # characters kept of a record


@dataclass(frozen=True, slots=True)
class BadFile:
    """What one task skipped.

    Attributes:
        records: How many.
        lines: JSON Lines, one a record.
        first: The first of them, in words.
    """

    records: int
    lines: str
    first: str


class BadRecords:
    """Collects a task's bad records.

    Args:
        limit: What the whole run may skip; a fraction of its records, or a number.
    """

    def __init__(self, limit: int | float) -> None:
        self._limit = limit
        self._lines: list[str] = []
        self._first = ""

    def add(self, place: str, record: Any, error: str) -> None:
        """Skip a record.

        Raises:
            DataError: The task alone has skipped more than the whole run may.
        """
        entry = {"place": place, "error": error, "record": _text(record)}
        self._lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
        self._first = self._first or f"{place}: {error}"
        if isinstance(self._limit, int) and len(self._lines) > self._limit:
            raise too_many(len(self._lines), self._limit, self._first)

    def file(self) -> BadFile | None:
        """All of them, or None where there were none."""
        return BadFile(len(self._lines), "".join(self._lines), self._first) if self._lines else None


def too_many(count: int, limit: int | float, first: str) -> DataError:
    """The error of a run with more bad records than it may skip."""
    allowed = f"{limit:g}" if isinstance(limit, int) else f"{100 * limit:g}%"
    return DataError(f"{count:,} bad records, more than --max-bad {allowed} allows; the first: {first}")


def save(files: Iterable[BadFile], path: Path) -> None:
    """Write what all tasks skipped into one JSON Lines file, at once."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.write_text("".join(file.lines for file in files), encoding="utf-8")
    temporary.replace(path)


def _text(record: Any) -> str:
    text = record if isinstance(record, str) else repr(record)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
