"""The typed model: names, types, defaults and ranges, and values that were checked against them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from paibook.errors import PlanError
from paibook.hyperparameters.values import merged, put, value_of

Model = TypeVar("Model", bound="HyperParameters")
LOG, STEP = "log", "step"  # in a field's JSON schema, beside minimum and maximum


class Group(dict[str, Any]):
    """Values of a nested group on a rank, where its model is not known: ``hp.schedule.warmup`` reads ``["warmup"]``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the group has no hyperparameter {name!r}; it has {', '.join(self)}") from None


class HyperParameters(BaseModel):
    """Named values a run is started with; subclass it to give types, defaults, ranges and nested groups.

    A subclass takes the names it declares and no others. The base class takes any.

    >>> HyperParameters.from_pairs(["lr=0.1", "batch_size=64", "name=adam"]).lr
    0.1
    >>> class Adam(HyperParameters):
    ...     lr: float = between(1e-5, 1.0, default=0.1, log=True)
    ...     steps: int = 100
    >>> Adam.from_pairs(["lr=0.5"]).values()
    {'lr': 0.5, 'steps': 100}
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    @classmethod
    def of(cls, defaults: Mapping[str, Any], name: str = "HyperParameters") -> type[HyperParameters]:
        """A model made from a plain dict of defaults, whose types it takes on.

        Args:
            defaults: Numbers, texts, booleans, lists; ``between(...)`` and ``choice(...)`` for a range or choices; a
                dict for a nested group.
            name: What messages call it.

        Raises:
            PlanError: A name that cannot be used, or a default that is no JSON value.
        """
        fields: dict[str, Any] = {}
        for key, value in defaults.items():
            _check_name(key, f"{key!r} of {name}")
            fields[key] = _declared(key, value)
        try:
            made = create_model(name, __base__=cls, **fields)
            made()
        except ValidationError as error:
            raise PlanError(f"the defaults of {name}: {spelled(error)}") from error
        return made

    @classmethod
    def from_pairs(cls, pairs: list[str]) -> Self:
        """Parse ``name=value`` words; a value is JSON where it parses as JSON, else text. ``a.b=1`` is in group ``a``.

        Raises:
            PlanError: A word without ``=``, a name that cannot be used, a number that is not finite, or a value the
                model does not accept.
        """
        return checked(cls, from_words(cls, pairs), "--hp ")

    @classmethod
    def from_variables(cls, variables: Mapping[str, Any]) -> Self:
        """The model with the values that a notebook's variables of the same names have, as papermill injects them.

        Raises:
            PlanError: A value the model does not accept.
        """
        return checked(cls, {name: variables[name] for name in cls.model_fields if name in variables}, "parameters: ")

    def values(self) -> dict[str, Any]:
        """All names and values, JSON-able."""
        return self.model_dump(mode="json")

    def parameters_cell(self) -> dict[str, Any]:
        """A notebook cell (nbformat 4) tagged ``parameters``, which papermill puts its own values behind."""
        lines = [f"{name} = {value!r}" for name, value in self.values().items()]
        return {
            "cell_type": "code",
            "execution_count": None,
            "id": "parameters",
            "metadata": {"tags": ["parameters"]},
            "outputs": [],
            "source": "\n".join(["# Parameters", *lines]),
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        schema: dict[str, Any] = handler(core_schema)
        if cls.model_fields:
            handler.resolve_ref_schema(schema)["additionalProperties"] = False
        return schema

    @model_validator(mode="before")
    @classmethod
    def _only_known_names(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        known = list(cls.model_fields)
        unknown = [name for name in values if name not in known]
        if known and unknown:
            raise ValueError(_unknown(unknown[0], cls))
        return {
            name: Group(value) if name in unknown and isinstance(value, dict) else value
            for name, value in values.items()
        }


def between(
    low: float,
    high: float,
    *,
    default: Any = ...,
    log: bool = False,
    step: float | None = None,
    description: str | None = None,
) -> Any:
    """A number from ``low`` to ``high``, both included: the value of a field of a ``HyperParameters`` subclass.

    Args:
        low, high: Finite.
        default: Without one a value has to be given, on the line or in the form.
        log: Whether the form's slider and the search go by its logarithm.
        step: Distance of the values a search tries and the slider stops at; it does not go with ``log``.
        description: Shown by the form.

    Raises:
        PlanError: An empty or endless range, a logarithm of what is not above 0, or a step that is not above 0.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise PlanError(f"between({low}, {high}): two finite numbers are expected, the smaller one first")
    if log and low <= 0:
        raise PlanError(f"between({low}, {high}, log=True): a logarithmic range begins above 0")
    if step is not None and (log or not 0 < step <= high - low):
        raise PlanError(f"between({low}, {high}, step={step}): a step above 0 is expected, and no log=True with it")
    extra: dict[str, Any] = {LOG: True} if log else {}
    if step is not None:
        extra[STEP] = step
    return Field(default, ge=low, le=high, description=description, json_schema_extra=extra, validate_default=True)


def choice(first: Any, *others: Any, description: str | None = None) -> Any:
    """One of some values, the first by default: in a dict of defaults. A subclass says ``Literal["sgd", "adam"]``.

    Raises:
        PlanError: Fewer than two choices, or two alike.
    """
    options = [first, *others]
    if len(options) < 2 or any(options.count(option) > 1 for option in options):
        raise PlanError(f"choice({', '.join(map(repr, options))}): at least two different values are expected")
    field = Field(first, description=description)
    field.annotation = Literal[tuple(options)]
    return field


def checked(model: type[Model], values: Mapping[str, Any], prefix: str = "") -> Model:
    """The model with these values, or a message that names each wrong one.

    Raises:
        PlanError: Beginning with ``prefix``.
    """
    try:
        return model(**over_group_defaults(model, values))
    except ValidationError as error:
        raise PlanError(f"{prefix}{spelled(error)}") from error


def over_group_defaults(model: type[HyperParameters], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with each group laid over the default that the model declares for it."""
    whole = dict(values)
    for name, field in model.model_fields.items():
        if group_of(field.annotation) is not None and isinstance(values.get(name), dict) and not field.is_required():
            default = field.get_default(call_default_factory=True)
            whole[name] = merged(default.values(), values[name])
    return whole


def from_words(model: type[HyperParameters], pairs: list[str]) -> dict[str, Any]:
    """The values of ``name=value`` words, groups nested, not yet checked against the model.

    Raises:
        PlanError: As ``HyperParameters.from_pairs``.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        path = name.split(".")
        if not separator or not all(part.isidentifier() for part in path):
            raise PlanError(f"--hp takes name=value words such as lr=0.1; got {pair!r}")
        _check_name(path[0], f"--hp {pair}", model)
        if model.model_fields and path[0] not in model.model_fields:
            raise PlanError(f"--hp {_unknown(path[0], model)}")
        try:
            put(values, path, text if _wants_text(model, path) and text[:1] != '"' else value_of(text))
        except ValueError as error:
            raise PlanError(f"--hp {pair}: {error}") from None
    return values


def messages(error: ValidationError) -> dict[str, str]:
    """What is wrong, by dotted path; an unknown name under ``""``."""
    found: dict[str, str] = {}
    for entry in error.errors():
        path = ".".join(str(part) for part in entry["loc"])
        found.setdefault(path, entry["msg"].removeprefix("Value error, "))
    return found


def spelled(error: ValidationError) -> str:
    """The same in one line."""
    return "; ".join(f"{path}: {text}" if path else text for path, text in messages(error).items())


def group_of(annotation: Any) -> type[HyperParameters] | None:
    """The model of a nested group, where the annotation is one."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, HyperParameters) else None


def _check_name(name: str, said: str, model: type[BaseModel] = HyperParameters) -> None:
    if not name.isidentifier() or name.startswith("_"):
        raise PlanError(f"{said}: a name is letters, digits and underscores, and begins with a letter")
    if hasattr(model, name) and name not in model.model_fields:
        raise PlanError(f"{said}: hp.{name} means something else already; choose another name")


def _declared(name: str, value: Any) -> tuple[Any, Any]:
    """The type and the field of one entry of a dict of defaults."""
    if isinstance(value, FieldInfo):
        if value.annotation is not None:
            return value.annotation, value
        return _kind_of_range(value), value
    if isinstance(value, Mapping):
        group = HyperParameters.of(value, name)
        return group, Field(default_factory=group)
    kinds = {bool: bool, int: int, float: float, str: str, list: list[Any], tuple: list[Any], type(None): Any}
    if type(value) not in kinds:
        kind = type(value).__name__
        raise PlanError(f"the default of {name}, of type {kind}: a number, text, True, False, list or dict is expected")
    return kinds[type(value)], Field(value, validate_default=True)


def _kind_of_range(field: FieldInfo) -> type:
    """``int`` where a range without a type has whole bounds and default, else ``float``."""
    bounds = [getattr(part, end) for part in field.metadata for end in ("ge", "le") if hasattr(part, end)]
    numbers = [*bounds, *([] if field.is_required() else [field.default])]
    return int if all(type(number) is int for number in numbers) else float


def _unknown(name: str, model: type[BaseModel]) -> str:
    known = list(model.model_fields)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else ""
    return f"{name}: {model.__name__} has no such hyperparameter; {hint or 'it has ' + ', '.join(known)}"


def _wants_text(model: type[HyperParameters], path: list[str]) -> bool:
    """Whether the model takes text at this path, so that ``name=1`` is the text ``1``."""
    field = model.model_fields.get(path[0])
    if field is None:
        return False
    if (group := group_of(field.annotation)) is not None:
        return len(path) > 1 and _wants_text(group, path[1:])
    options = get_args(field.annotation)
    return field.annotation is str or (bool(options) and all(isinstance(option, str) for option in options))
