"""Line files: plain text and JSON Lines, whole or by ranges of bytes."""

from __future__ import annotations

import json
import lzma
import zlib
from collections.abc import Iterator
from itertools import repeat
from typing import Any, BinaryIO

from paibook.data.batch import Batch
from paibook.data.formats import compression_of, open_bytes
from paibook.errors import DataError

BLOCK = 1 << 20  # bytes read at once: large enough to make a block's overhead small, small enough for the cache
END = 1 << 62
BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_scan_json = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def text_batches(url: str, start: int = 0, stop: int = END) -> Iterator[Batch]:
    """Lines that start in bytes ``start`` to ``stop``, without their newline, as str.

    Args:
        url: The file; ranges count its bytes after decompression.
        start, stop: Ranges that meet share no line and miss none.

    Raises:
        DataError: Bytes that are not UTF-8, or a compressed file that ends early; names the file and the line.
    """
    for position, text in texts(url, start, stop):
        lines = lines_of(text)
        yield Batch(lines, lambda index, position=position: line_place(url, position, index))  # type: ignore[misc]


def json_batches(url: str, start: int = 0, stop: int = END) -> Iterator[Batch]:
    """The JSON values on the lines that start in a range of bytes; blank lines are skipped.

    Raises:
        DataError: As ``text_batches``, and a line that is not one JSON value; names the file and the line.
    """
    for position, text in texts(url, start, stop):
        values, numbers = _parse(lines_of(text), url, position)

        def place(index: int, position: int = position, numbers: list[int] | None = numbers) -> str:
            return line_place(url, position, numbers[index] if numbers else index)

        yield Batch(values, place)


def blocks(file: BinaryIO, start: int, stop: int, size: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Whole lines that start in a range, about ``size`` bytes at a time, each with the position of its first byte."""
    size = BLOCK if size is None else size
    if start:
        # The line that holds byte start - 1 belongs to the range before this one.
        file.seek(start - 1)
        start += len(file.readline()) - 1
    position = start
    while position < stop:
        block = file.read(min(size, stop - position))
        if not block:
            return
        if not block.endswith(b"\n"):
            block += file.readline()
        yield position, block
        position += len(block)


def stored_blocks(url: str, start: int, stop: int, size: int | None = None) -> Iterator[tuple[int, bytes]]:
    """``blocks`` of a file, decompressed, without its byte order mark.

    Raises:
        DataError: The file is UTF-16, or compressed and ends early or is damaged; names the place.
    """
    reached = start
    try:
        with open_bytes(url) as file:
            for position, block in blocks(file, start, stop, size):
                reached = position + len(block)
                yield position, without_mark(url, block) if position == 0 else block
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if compression_of(url) is None or not reached:
            raise
        raise DataError(
            f"cannot read {url} after line {line_number(url, reached) - 1:,}: {error}; the file is cut off or damaged: "
            "fetch it again"
        ) from error


def without_mark(url: str, block: bytes) -> bytes:
    """The first bytes of a file without a byte order mark.

    Raises:
        DataError: The mark is that of UTF-16.
    """
    if block.startswith(_UTF_16):
        raise DataError(f"{url}, line 1: the file is UTF-16, as its first bytes say; convert the file to UTF-8")
    return block.removeprefix(BOM)


def texts(url: str, start: int, stop: int) -> Iterator[tuple[int, str]]:
    """As ``stored_blocks``, as text.

    Raises:
        DataError: As ``stored_blocks``, and bytes that are not UTF-8; names the file and the line.
    """
    for position, block in stored_blocks(url, start, stop):
        yield position, decoded(block, url, position)


def decoded(block: bytes, url: str, position: int) -> str:
    """The text of a block that starts at a byte of a file.

    Raises:
        DataError: Bytes that are not UTF-8; names the file and the line.
    """
    try:
        return block.decode()
    except UnicodeDecodeError as error:
        place = line_place(url, position, block.count(b"\n", 0, error.start))
        raise DataError(
            f"{place}: byte 0x{block[error.start]:02x} is not UTF-8 ({error.reason}); convert the file to UTF-8"
        ) from error


def lines_of(text: str) -> list[str]:
    """The lines of a text without their newlines."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


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


def line_place(url: str, position: int, index: int) -> str:
    """Names a line: the one ``index`` lines after the line that starts at byte ``position``."""
    return f"{url}, line {line_number(url, position) + index}"


def _parse(lines: list[str], url: str, position: int) -> tuple[list[Any], list[int] | None]:
    """The values, and their lines' indices where those are not 0, 1, 2, ..."""
    try:
        found = list(map(_scan_json, lines, repeat(0)))
    except (ValueError, RecursionError):
        found = []
    # A scanner that stops ends the map early; one that stops before the line's end met white space or an error.
    if len(found) == len(lines) and [end for _, end in found] == list(map(len, lines)):
        return [value for value, _ in found], None
    values: list[Any] = []
    numbers: list[int] = []
    for index, line in enumerate(lines):
        if line and not line.isspace():
            values.append(_one_value(line, url, position, index))
            numbers.append(index)
    return values, numbers


def _one_value(line: str, url: str, position: int, index: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        shown = line if len(line) <= 60 else line[:57] + "..."
        raise DataError(
            f"{line_place(url, position, index)}: not one JSON value on the line ({error}): {shown!r}; "
            "JSON that spans lines is read with the format 'document'"
        ) from error
