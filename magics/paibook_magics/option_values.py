"""Values of options: words on a magic's line as numbers, shares, sizes and names, or what was expected instead."""

from __future__ import annotations

import argparse
import math
import re
import threading
from collections.abc import Callable, Sequence

from paibook_magics.sizes import parse_size

_PERCENT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*%", re.ASCII)


def at_least(least: int) -> Callable[[str], int]:
    """A reader of whole numbers of ``least`` or more."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"a whole number is expected, got {text!r}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"at least {least} is expected, got {text}")
        return value

    return whole_number


def seconds(text: str) -> float:
    """A time above 0 that a thread can wait for."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"seconds are expected, got {text!r}") from None
    if not 0 < value <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"seconds above 0 are expected, got {text}")
    return value


def size(text: str) -> int:
    """Bytes, from a number with its unit."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def share(text: str) -> float:
    """A fraction above 0, at most 1, from ``1%`` or ``0.01``; a plain 1 could mean either and is refused."""
    match = _PERCENT.fullmatch(text)
    try:
        value = float(match[1]) / 100 if match else float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1 or (value == 1 and match is None):
        raise argparse.ArgumentTypeError(f"a share above 0 is expected, such as 1%, 0.01 or 100%; got {text!r}")
    return value


def percent(text: str) -> int:
    """Whole percent of a card, 1 to 100, from ``50%`` or ``0.5``."""
    value = share(text)
    if value < 0.01:
        raise argparse.ArgumentTypeError(f"1% at least is expected, got {text!r}")
    return round(100 * value)


def labels(text: str) -> tuple[str, ...]:
    """Labels of cards, separated by commas: ``0``, or ``0:1`` for a MIG slice."""
    words = _words(text)
    if not words or not all(re.fullmatch(r"\d+(:\d+)?", word, re.ASCII) for word in words):
        raise argparse.ArgumentTypeError(
            f"numbers of GPUs are expected, separated by commas, such as 0,1; got {text!r}"
        )
    return words


def most_bad(text: str) -> int | float:
    """How many bad records a run may skip: a number, or a fraction of all records from ``1%``."""
    if text.isascii() and text.isdecimal():
        return int(text)
    match = _PERCENT.fullmatch(text)
    if match is None or float(match[1]) > 100:
        raise argparse.ArgumentTypeError(
            f"a number of records or a share of them is expected, such as 100 or 1%; got {text!r}"
        )
    return float(match[1]) / 100


def variables(text: str) -> tuple[str, ...]:
    """Names of notebook variables, separated by commas."""
    return _checked(_words(text), text, r"[^\W\d]\w*")


def pulls(text: str) -> tuple[str, ...]:
    """The same, each perhaps with a rank: ``c@1``."""
    return _checked(_words(text), text, r"[^\W\d]\w*(@\d+)?")


def columns(text: str) -> tuple[str, ...]:
    """Names of columns, separated by commas; they may hold anything else."""
    words = _words(text)
    if not words or len(set(words)) < len(words):
        raise argparse.ArgumentTypeError(
            f"different column names are expected, separated by commas, such as country,year; got {text!r}"
        )
    return words


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _checked(words: Sequence[str], text: str, pattern: str) -> tuple[str, ...]:
    for word in words:
        if not re.fullmatch(pattern, word):
            raise argparse.ArgumentTypeError(f"variable names are expected, separated by commas; got {text!r}")
    return tuple(words)
