"""What a form and a search read off a model."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from pydantic import Field

from paibook.errors import PlanError
from paibook.hyperparameters import HyperParameters, between, choice
from paibook.hyperparameters.fields import FieldView, fields_of, model_of


class Inner(HyperParameters):
    warmup: int = between(0, 100, default=5, step=5)


class Model(HyperParameters):
    lr: float = between(1e-5, 1.0, default=0.1, log=True, description="step size")
    momentum: float = Field(0.9, ge=0, lt=1)
    layers: int = 3
    opt: Literal["sgd", "adam"] = "sgd"
    nesterov: bool = False
    name: str
    sizes: list[int] = [8, 8]
    inner: Inner = Inner(warmup=10)


@pytest.fixture(scope="module")
def fields() -> dict[str, FieldView]:
    return {view.path: view for view in fields_of(Model)}


def test_every_field_is_there_in_order_groups_by_dotted_path(fields: dict[str, FieldView]) -> None:
    assert list(fields) == ["lr", "momentum", "layers", "opt", "nesterov", "name", "sizes", "inner.warmup"]
    assert [view.kind for view in fields.values()] == [
        "float", "float", "int", "choice", "bool", "text", "json", "int"
    ]  # fmt: skip
    json.dumps([view.to_dict() for view in fields.values()])


def test_ranges_scales_and_defaults(fields: dict[str, FieldView]) -> None:
    lr, momentum, warmup = fields["lr"], fields["momentum"], fields["inner.warmup"]
    assert (lr.low, lr.high, lr.log, lr.default, lr.description) == (1e-5, 1.0, True, 0.1, "step size")
    assert (momentum.low, momentum.low_open, momentum.high, momentum.high_open) == (0, False, 1, True)
    assert (warmup.low, warmup.high, warmup.step, warmup.default) == (0, 100, 5, 10)
    assert fields["opt"].choices == ("sgd", "adam")
    assert fields["name"].required


def test_what_a_search_can_try(fields: dict[str, FieldView]) -> None:
    assert [path for path, view in fields.items() if view.searchable] == [
        "lr", "momentum", "opt", "nesterov", "inner.warmup"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("thing", "names", "values"),
    [
        (Inner, ["warmup"], {}),
        (Inner(warmup=7), ["warmup"], {"warmup": 7}),
        ({"lr": 0.1, "opt": choice("a", "b")}, ["lr", "opt"], {}),
        (HyperParameters(lr=0.1), ["lr"], {}),
    ],
)
def test_what_a_model_can_be_given_as(thing: Any, names: list[str], values: dict[str, Any]) -> None:
    model, given = model_of(thing)
    assert [view.path for view in fields_of(model)] == names
    assert given == values


def test_anything_else_is_named() -> None:
    with pytest.raises(PlanError, match=r"hp is of type int; a subclass or an instance of pai\.HyperParameters"):
        model_of(3, "hp")
