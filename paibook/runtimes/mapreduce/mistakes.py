"""Mistakes: what is wrong when a program's function does not yield what MapReduce needs.

The loops that call the user's functions check nothing, to be fast; when one of them fails in its own line, the values
at hand tell here what the user did.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from paibook.errors import UserCodeError
from paibook.program import capture_error

PAIRS = "(key, value) pairs"
RECORDS = "records"
UNSORTED = "--sort: the keys cannot be compared with each other; yield keys of one type"


class WrongYield(TypeError):
    """A function of the program returned or yielded something of the wrong kind."""


def checked(function: Callable[..., Any], name: str, what: str) -> Callable[..., Any]:
    """The function, refusing what iterates but is not meant to: a str, a dict or a single tuple.

    A generator function comes back as it is, since it cannot return anything wrong: it costs nothing.
    """
    if inspect.isgeneratorfunction(function):
        return function

    def check(*arguments: Any) -> Any:
        made = function(*arguments)
        if isinstance(made, (str, bytes, dict, tuple)) or not isinstance(made, Iterable):
            raise WrongYield(_wrong_return(name, what, made))
        return made

    return check


def check_pair(pair: Any, name: str = "map") -> None:
    """Refuse what is neither tuple nor list, but would pass as a pair: a str, bytes, set or dict of two.

    Args:
        pair: What was yielded. Loops over many ask only where its type is not exactly tuple.
        name: The function.

    Raises:
        WrongYield: Saying so.
    """
    if not isinstance(pair, (tuple, list)):
        raise WrongYield(_not_a_pair(name, pair))


def explained(error: BaseException, where: str, name: str, pair: Any = None, of_pairs: bool = False) -> UserCodeError:
    """The error of a function as one that travels, said in the words of MapReduce where that is what went wrong.

    Args:
        error: Just caught, in the frame that calls the function.
        where: The task and the record.
        name: The function.
        pair: What it yielded last.
        of_pairs: Whether it is to yield pairs, as ``map`` and ``combine`` are.
    """
    if isinstance(error, WrongYield):
        return said(where, str(error))
    if (of_pairs or _yields_pairs(name)) and error.__traceback__ is not None and error.__traceback__.tb_next is None:
        mistake = _mistake(name, pair)
        if mistake:
            return said(where, mistake)
    return capture_error(error, where)


def _signature(name: str) -> str:
    if name.startswith("map"):
        return f"{name}(record)"
    return f"{name}(task)" if name in ("setup", "cleanup") else f"{name}(key, values)"


def _yields_pairs(name: str) -> bool:
    return name.startswith(("map", "combine"))


def said(where: str, message: str, name: str = "ProgramError") -> UserCodeError:
    """An error in words alone: there is no line of the cell to show."""
    return UserCodeError(where, name, message, f"{where}: {message}\n")


def _mistake(name: str, pair: Any) -> str | None:
    try:
        key, _value = pair
    except (TypeError, ValueError):
        return _not_a_pair(name, pair)
    try:
        hash(key)
    except TypeError as error:
        advice = "use a tuple instead of a list, a frozenset instead of a set"
        return f"{_signature(name)} yielded the key {_shown(key)}, which cannot be hashed ({error}); {advice}"
    return None


def _not_a_pair(name: str, pair: Any) -> str:
    return f"{_signature(name)} yielded {_shown(pair)}, which is not a (key, value) pair; write `yield key, value`"


def _wrong_return(name: str, what: str, made: Any) -> str:
    signature = _signature(name)
    example = "yield key, value" if what == PAIRS else "yield record"
    text = f"{signature} returned {_shown(made)} where an iterable of {what} is needed; "
    if made is None:
        return text + f"did you forget to yield? Write `{example}`"
    if isinstance(made, dict) and what == PAIRS:
        return text + "return its .items()"
    return text + f"write `{example}` instead of `return`, or return a list of {what}"


def _shown(value: Any) -> str:
    text = repr(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    return text if value is None else f"{text} ({type(value).__name__})"
