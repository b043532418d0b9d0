"""Values by name: nested and flat, and as the words of a magic's line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted path.

    >>> flat({"lr": 0.1, "schedule": {"warmup": 10}})
    {'lr': 0.1, 'schedule.warmup': 10}
    """
    return dict(_flat(values, prefix))


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``flat``."""
    made: dict[str, Any] = {}
    for path, value in values.items():
        put(made, path.split("."), value)
    return made


def merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others laid over them, group by group."""
    return nested({**flat(values), **flat(over)})


def at(values: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path.

    Raises:
        KeyError: There is none.
    """
    for part in path.split("."):
        values = values[part]
    return values


def put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value at a path of names, making the groups on the way."""
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            inner = values[part] = {}
        values = inner
    values[path[-1]] = value


def value_of(text: str) -> Any:
    """The value a word gives: JSON where it parses as JSON, else text.

    Raises:
        ValueError: A number that is not finite.

    >>> value_of("0.1"), value_of("adam"), value_of("True")
    (0.1, 'adam', True)
    """
    if _NOT_FINITE.fullmatch(text):
        _refuse(text)
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def words(values: Mapping[str, Any]) -> list[str]:
    """Values as ``name=value`` words, groups by dotted path; ``HyperParameters.from_pairs`` reads them back.

    >>> words({"lr": 0.1, "name": "adam", "text": "1", "schedule": {"warmup": 10}})
    ['lr=0.1', 'name=adam', 'text="1"', 'schedule.warmup=10']
    """
    return [f"{path}={_text(value)}" for path, value in flat(values).items()]


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value and all(str(key).isidentifier() for key in value):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    try:
        if isinstance(value, str) and value_of(value) == value:
            return value
    except ValueError:
        pass
    return json.dumps(value)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"a finite number is expected, got {text}")
