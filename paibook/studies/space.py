"""The search space: which hyperparameters are searched, where, and what the others are."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from paibook.errors import PlanError
from paibook.hyperparameters import HyperParameters, between, choice
from paibook.hyperparameters.fields import FieldView, fields_of
from paibook.hyperparameters.model import checked
from paibook.hyperparameters.values import flat, merged, nested, value_of

_RANGE = re.compile(r"(?P<low>[^.:,][^:,]*?)\.\.(?P<high>[^:,]+)(:(?P<how>[^:,]+))?")


@dataclass(frozen=True)
class Space:
    """What a search tries.

    Attributes:
        model: Checks every trial's values.
        searched: The fields that vary.
        fixed: Values of the others, nested.
    """

    model: type[HyperParameters]
    searched: tuple[FieldView, ...]
    fixed: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        model: type[HyperParameters],
        values: Mapping[str, Any],
        fixed: Mapping[str, Any],
        ranges: Mapping[str, Any],
    ) -> Space:
        """The space of a model.

        Args:
            model: What has a range or choices in it is searched.
            values: Laid over its defaults.
            fixed: Values that stay.
            ranges: By dotted path, instead of the model's own; ``between(...)`` or ``choice(...)``.

        Raises:
            PlanError: Nothing to search, a value the model does not accept, a range that leaves the model's, or a
                name it does not have.
        """
        if both := ", ".join(sorted(flat(fixed).keys() & ranges.keys())):
            raise PlanError(f"{both}: both a value and a range to search; leave out one")
        own = {view.path: view for view in fields_of(model)}
        typed = {path: _typed(info, own.get(path)) for path, info in ranges.items()}
        extra = {view.path: view for view in fields_of(HyperParameters.of(nested(typed)))} if ranges else {}
        if own:
            _check_ranges(model, own, extra, values, fixed)
        stays = flat(fixed)
        found = {**own, **extra}
        searched = tuple(view for path, view in found.items() if view.searchable and path not in stays)
        if not searched:
            raise PlanError(_nothing(model, own, stays))
        space = cls(model, searched, merged(values, fixed))
        space.values({view.path: _first(view) for view in searched})
        return space

    def values(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """All hyperparameters of a trial, checked, by the values of those that are searched.

        Raises:
            PlanError: The model does not accept them.
        """
        return checked(self.model, merged(self.fixed, nested(chosen)), "a trial's hyperparameters: ").values()

    def described(self) -> list[dict[str, Any]]:
        """The searched fields, JSON-able."""
        return [view.to_dict() for view in self.searched]


def parse_ranges(words: Sequence[str]) -> dict[str, Any]:
    """Ranges from words: ``lr=1e-4..1:log``, ``units=16..256:16`` (by steps), ``optimizer=sgd,adam``.

    A range between whole numbers is one of whole numbers, unless the model has fractions there.

    Raises:
        PlanError: A word of another shape, or a range that cannot be.

    >>> sorted(parse_ranges(["lr=1e-4..1:log", "optimizer=sgd,adam"]))
    ['lr', 'optimizer']
    """
    return {word.partition("=")[0]: _parsed(word) for word in words}


def _parsed(word: str) -> Any:
    name, separator, text = word.partition("=")
    shapes = "lr=1e-4..1:log, units=16..256:16 or optimizer=sgd,adam"
    if not separator or not all(part.isidentifier() for part in name.split(".")):
        raise PlanError(f"--space takes words such as {shapes}; got {word!r}")
    match = _RANGE.fullmatch(text)
    try:
        if match is not None:
            low, high = _number(match["low"]), _number(match["high"])
            how = match["how"]
            step = None if how in (None, "log") else _number(how)
            return between(low, high, default=low, log=how == "log", step=step)
        options = [value_of(part) for part in text.split(",")]
        if len(options) > 1:
            return choice(*options)
    except (PlanError, ValueError) as error:
        raise PlanError(f"--space {word}: {error}") from None
    raise PlanError(f"--space takes words such as {shapes}; got {word!r}")


def _number(text: str) -> float | int:
    value = value_of(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"a number is expected, got {text!r}")
    return value


def _check_ranges(
    model: type[HyperParameters],
    own: Mapping[str, FieldView],
    extra: Mapping[str, FieldView],
    values: Mapping[str, Any],
    fixed: Mapping[str, Any],
) -> None:
    """Let the model itself judge both ends, or every choice, of each range that is to take the place of its own."""
    filled = {path: _first(view) for path, view in own.items() if view.required and view.searchable}
    for path, view in extra.items():
        ends = view.choices or (view.low, view.high)
        for end in ends:
            checked(
                model,
                merged(merged(nested({**filled, path: end}), values), nested({**flat(fixed), path: end})),
                "--space ",
            )


def _typed(info: Any, own: FieldView | None) -> Any:
    """A range with whole bounds as one of fractions, where the model has fractions there."""
    if own is None or own.kind != "float" or not isinstance(info, FieldInfo) or info.annotation is not None:
        return info
    made = copy.copy(info)
    made.annotation = float
    return made


def _first(view: FieldView) -> Any:
    """Some value in the range, to try whether the model accepts it."""
    if view.kind == "bool":
        return False
    if view.choices:
        return view.choices[0]
    assert view.low is not None
    assert view.high is not None
    low = view.low + (view.step or (view.high - view.low) / 1000) if view.low_open else view.low
    return int(low) if view.kind == "int" else low


def _nothing(model: type[HyperParameters], own: Mapping[str, FieldView], fixed: Mapping[str, Any]) -> str:
    how = "give ranges with pai.between(low, high), Literal[...] choices, or --space lr=1e-4..1:log"
    held = [path for path, view in own.items() if view.searchable and path in fixed]
    if held:
        return f"there is nothing to search: {', '.join(held)} of {model.__name__} have values given; leave one out"
    return f"there is nothing to search: no hyperparameter{' of ' + model.__name__ if own else ''} has a range; {how}"
