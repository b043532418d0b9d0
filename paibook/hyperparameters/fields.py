"""What can be read off a model: the kind, range, choices and scale of each field, for forms and for searches."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from paibook.errors import PlanError
from paibook.hyperparameters.model import LOG, STEP, HyperParameters, group_of
from paibook.hyperparameters.values import flat

Kind = Literal["float", "int", "bool", "choice", "text", "json"]


@dataclass(frozen=True)
class FieldView:
    """One hyperparameter.

    Attributes:
        path: Dotted where it is in a group.
        kind: ``json`` is any value that none of the others is.
        default: None where there is none.
        low, high: Bounds of a number, as far as there are any.
        low_open, high_open: Whether the bound itself is excluded.
        log: Whether sliders and searches go by the logarithm.
        step: Distance between values, or None.
        choices: Of a choice.
        required: Whether a value has to be given.
        description: For people.
    """

    path: str
    kind: Kind
    default: Any = None
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()
    required: bool = False
    description: str = ""

    @property
    def searchable(self) -> bool:
        """Whether a search knows what to try: choices, or a number with both ends."""
        return self.kind in ("choice", "bool") or (self.low is not None and self.high is not None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "choices": list(self.choices)}


def fields_of(model: type[HyperParameters], prefix: str = "") -> list[FieldView]:
    """The fields of a model in order of declaration, those of groups by dotted path."""
    found: list[FieldView] = []
    for name, info in model.model_fields.items():
        group = group_of(info.annotation)
        if group is None:
            found.append(_field(prefix + name, info))
            continue
        # A group's default may differ from those of its fields.
        given = {} if info.is_required() else flat(info.get_default(call_default_factory=True).values())
        for view in fields_of(group, f"{prefix}{name}."):
            inner = view.path.removeprefix(f"{prefix}{name}.")
            found.append(_with_default(view, given[inner]) if inner in given else view)
    return found


def model_of(thing: Any, name: str = "HyperParameters") -> tuple[type[HyperParameters], dict[str, Any]]:
    """The model and the values that a subclass, an instance or a dict of defaults stands for.

    Raises:
        PlanError: It is none of these.
    """
    if isinstance(thing, type) and issubclass(thing, HyperParameters):
        return thing, {}
    if isinstance(thing, HyperParameters):
        values = thing.values()
        return (type(thing), values) if type(thing).model_fields else (HyperParameters.of(values, name), {})
    if isinstance(thing, dict):
        return HyperParameters.of(thing, name), {}
    raise PlanError(
        f"{name} is of type {type(thing).__name__}; a subclass or an instance of pai.HyperParameters, or a dict of "
        "defaults, is expected"
    )


def _field(path: str, info: FieldInfo) -> FieldView:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    kind, choices = _kind(info.annotation)
    bounds = _bounds(info) if kind in ("int", "float") else {}
    step = extra.get(STEP) or (1 if kind == "int" and not extra.get(LOG) else None)
    return FieldView(
        path,
        kind,
        default=None if info.is_required() else _plain(info.get_default(call_default_factory=True)),
        **bounds,
        log=bool(extra.get(LOG)),
        step=step if isinstance(step, (int, float)) else None,
        choices=choices,
        required=info.is_required(),
        description=info.description or "",
    )


def _kind(annotation: Any) -> tuple[Kind, tuple[Any, ...]]:
    if get_origin(annotation) is Literal:
        return "choice", get_args(annotation)
    kinds: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "text"}
    return kinds.get(annotation, "json"), ()


def _bounds(info: FieldInfo) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for end, name, is_open in (("ge", "low", False), ("gt", "low", True), ("le", "high", False), ("lt", "high", True)):
        for part in info.metadata:
            value = getattr(part, end, None)
            if value is not None and math.isfinite(value):
                found |= {name: value, f"{name}_open": is_open}
    return found


def _with_default(view: FieldView, default: Any) -> FieldView:
    return FieldView(**{**view.__dict__, "default": default, "required": False})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
