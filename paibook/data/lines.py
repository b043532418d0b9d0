"""Line files: plain text and JSON Lines, whole or by ranges of bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from paibook.data.batch import Batch
from paibook.data.formats import open_bytes
from paibook.errors import DataError

BLOCK = 1 << 20  # bytes read at once: large enough to make a block's overhead small, small enough for the cache
END = 1 << 62
_BOM = b"\xef\xbb\xbf"
_scan_json = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def text_batches(url: str, start: int = 0, stop: int = END) -> Iterator[Batch]:
    """Lines that start in bytes ``start`` to ``stop``, without their newline, as str.

    Args:
        url: The file; ranges count its bytes after decompression.
        start, stop: Ranges that meet share no line and miss none.

    Raises:
        DataError: Bytes that are not UTF-8; names the file and the line.
    """
    for position, lines in _decoded(url, start, stop):
        yield Batch(lines, lambda index, position=position: _place(url, position, index))  # type: ignore[misc]


def json_batches(url: str, start: int = 0, stop: int = END) -> Iterator[Batch]:
    """The JSON values on the lines that start in a range of bytes; blank lines are skipped.

    Raises:
        DataError: A line that is not one JSON value; names the file and the line.
    """
    for position, lines in _decoded(url, start, stop):
        values, numbers = _parse(lines, url, position)

        def place(index: int, position: int = position, numbers: list[int] | None = numbers) -> str:
            return _place(url, position, numbers[index] if numbers else index)

        yield Batch(values, place)


def blocks(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines that start in a range, about ``BLOCK`` bytes at a time, each with the position of its first byte."""
    if start:
        # The line that holds byte start - 1 belongs to the range before this one.
        file.seek(start - 1)
        start += len(file.readline()) - 1
    position = start
    while position < stop:
        block = file.read(min(BLOCK, stop - position))
        if not block:
            return
        if not block.endswith(b"\n"):
            block += file.readline()
        yield position, block
        position += len(block)


def line_number(url: str, position: int) -> int:
    """The number, from 1, of the line that starts at byte ``position``; reads the file up to there."""
    number = 1
    with open_bytes(url) as file:
        while position > 0:
            block = file.read(min(BLOCK, position))
            if not block:
                break
            number += block.count(b"\n")
            position -= len(block)
    return number


def _decoded(url: str, start: int, stop: int) -> Iterator[tuple[int, list[str]]]:
    with open_bytes(url) as file:
        for position, block in blocks(file, start, stop):
            if position == 0 and block.startswith(_BOM):
                block = block[len(_BOM) :]
            yield position, _lines(block, url, position)


def _lines(block: bytes, url: str, position: int) -> list[str]:
    try:
        text = block.decode()
    except UnicodeDecodeError as error:
        place = _place(url, position, block.count(b"\n", 0, error.start))
        raise DataError(
            f"{place}: byte 0x{block[error.start]:02x} is not UTF-8 ({error.reason}); convert the file to UTF-8"
        ) from error
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _parse(lines: list[str], url: str, position: int) -> tuple[list[Any], list[int] | None]:
    """The values, and their lines' indices where those are not 0, 1, 2, ..."""
    values: list[Any] = []
    numbers: list[int] | None = None
    for index, line in enumerate(lines):
        try:
            value, end = _scan_json(line, 0)
        except (StopIteration, ValueError, RecursionError):
            end = -1
        if end != len(line):  # white space around the value, a blank line, or an error: the slow way tells which
            if not line.strip():
                numbers = list(range(index)) if numbers is None else numbers
                continue
            value = _one_value(line, url, position, index)
        values.append(value)
        if numbers is not None:
            numbers.append(index)
    return values, numbers


def _one_value(line: str, url: str, position: int, index: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        shown = line if len(line) <= 60 else line[:57] + "..."
        raise DataError(
            f"{_place(url, position, index)}: not one JSON value on the line ({error}): {shown!r}; "
            "JSON that spans lines is read with the format 'document'"
        ) from error


def _place(url: str, position: int, index: int) -> str:
    return f"{url}, line {line_number(url, position) + index}"
