"""CSV cuts: where a CSV file may be cut, although its quoted fields may hold newlines.

Whether a newline ends a row depends on all quotes before it, so the file is read once, from its start, for its quotes
alone. A quote opens a field only right after a delimiter or a newline (or right after a closing quote, as the second
half of an escaped one); elsewhere outside quotes it is a plain character, as the csv module and Arrow have it. Where
all quotes fit this alternation, which is checked for many of them at once, their count tells what is quoted; a chunk
where they do not is walked quote by quote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from paibook.data.lines import BOM, END

CHUNK = 1 << 18  # bytes looked at together: they and what is made of them stay in the processor's cache
_QUOTE = ord('"')


@dataclass(slots=True)
class _Quotes:
    """What is known of the quotes up to a place in the file.

    Attributes:
        openers: 256 flags: after which bytes a quote may open a field.
        inside: Whether the place is within a quoted field.
        last: The byte before the place.
        closed: Whether that byte closed a quoted field.
    """

    openers: Any
    inside: bool = False
    last: int = ord("\n")
    closed: bool = False

    def pass_over(self, chunk: bytes) -> Any:
        """Move on over a chunk; the places in it of the quotes that open or close a field."""
        codes = numpy.frombuffer(chunk, numpy.uint8)
        quotes = numpy.flatnonzero(codes == _QUOTE)
        if quotes.size and not self._alternate(codes, quotes):
            quotes = self._walk(codes, quotes)
        self.inside ^= bool(quotes.size & 1)
        self.last = int(codes[-1])
        if quotes.size:
            self.closed = not self.inside and int(quotes[-1]) == len(chunk) - 1
        else:
            self.closed = False
        return quotes

    def _alternate(self, codes: Any, quotes: Any) -> bool:
        """Whether each quote opens or closes a field, in turns."""
        opening = quotes[int(self.inside) :: 2]
        if opening.size and opening[0] == 0:
            if not (self.openers[self.last] or self.closed):
                return False
            opening = opening[1:]
        before = codes[opening - 1]
        # Within a chunk where all others do, a quote before an opening one closed a field.
        return bool((self.openers[before] | (before == _QUOTE)).all())

    def _walk(self, codes: Any, quotes: Any) -> Any:
        inside, closed = self.inside, -1 if self.closed else -2
        found = []
        for quote in quotes.tolist():
            if inside:
                inside, closed = False, quote
            elif closed == quote - 1 or self.openers[codes[quote - 1] if quote else self.last]:
                inside = True
            else:
                continue
            found.append(quote)
        return numpy.array(found, dtype=numpy.int64)


def record_borders(file: Any, targets: Sequence[int], delimiter: str = ",", start: int = 0) -> list[int]:
    """Where rows begin: for each target the first row that starts there or after it, each place once.

    Args:
        file: Bytes, seekable; read up to the last border.
        targets: Places in the file, rising.
        delimiter: Between fields, one ASCII character.
        start: A place where a row is known to begin.
    """
    quotes = _Quotes(_openers(delimiter))
    position = start if start else len(BOM) if file.read(len(BOM)) == BOM else 0
    file.seek(position)
    borders: list[int] = []
    wanted = iter(targets)
    target = next((t for t in wanted if t > position), END)
    while target < END and (chunk := file.read(CHUNK)):
        inside = quotes.inside
        edges = quotes.pass_over(chunk)
        while (newline := _newline(chunk, max(0, target - 1 - position), edges, inside)) >= 0:
            borders.append(position + newline + 1)
            target = next((t for t in wanted if t > borders[-1]), END)
        position += len(chunk)
    return borders


def _openers(delimiter: str) -> Any:
    flags = numpy.zeros(256, dtype=bool)
    flags[[ord(delimiter), ord("\n"), ord("\r")]] = True
    return flags


def _newline(chunk: bytes, start: int, edges: Any, inside: bool) -> int:
    """The first newline from ``start`` on that is not quoted, or -1.

    Args:
        chunk: Bytes.
        start: Where in them.
        edges: Where in them quoted fields begin and end, in turns.
        inside: Whether the first edge is an end.
    """
    while (newline := chunk.find(b"\n", start)) >= 0:
        passed = int(numpy.searchsorted(edges, newline))
        if not (passed & 1) ^ inside:
            return newline
        if passed == len(edges):
            break
        start = int(edges[passed]) + 1
    return -1
