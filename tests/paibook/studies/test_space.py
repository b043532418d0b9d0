"""The search space: what is searched, what stays, and what cannot be meant."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from paibook.errors import PlanError
from paibook.hyperparameters import HyperParameters, between, choice
from paibook.studies import Space
from paibook.studies.space import parse_ranges


class Inner(HyperParameters):
    warmup: int = between(0, 100, default=5, step=5)


class Model(HyperParameters):
    lr: float = between(1e-5, 1.0, log=True)
    opt: Literal["sgd", "adam"] = "sgd"
    steps: int = 10
    inner: Inner = Inner()


def space(ranges: dict[str, Any] | None = None, **fixed: Any) -> Space:
    return Space.of(Model, {}, fixed, ranges or {})


def test_what_has_a_range_or_choices_is_searched_and_the_rest_has_its_default() -> None:
    made = space()
    assert [view.path for view in made.searched] == ["lr", "opt", "inner.warmup"]
    values = made.values({"lr": 0.5, "opt": "adam", "inner.warmup": 50})
    assert values == {"lr": 0.5, "opt": "adam", "steps": 10, "inner": {"warmup": 50}}


def test_values_that_are_given_stay() -> None:
    made = space(lr=0.1, steps=3)
    assert [view.path for view in made.searched] == ["opt", "inner.warmup"]
    assert made.values({"opt": "sgd", "inner.warmup": 5})["lr"] == 0.1


def test_ranges_take_the_place_of_the_models_own() -> None:
    made = space(parse_ranges(["lr=0.01..0.1", "steps=10..30:10"]))
    views = {view.path: view for view in made.searched}
    assert (views["lr"].low, views["lr"].high, views["lr"].log) == (0.01, 0.1, False)
    assert (views["steps"].kind, views["steps"].step) == ("int", 10)


def test_whole_bounds_are_fractions_where_the_model_has_them() -> None:
    model = HyperParameters.of({"lr": 0.1, "n": 3})
    made = Space.of(model, {}, {}, parse_ranges(["lr=0..1", "n=0..9"]))
    assert [(view.path, view.kind, view.step) for view in made.searched] == [("lr", "float", None), ("n", "int", 1)]
    with pytest.raises(PlanError, match="n: Input should be a valid integer"):
        Space.of(model, {}, {}, parse_ranges(["n=0.5..9"]))


def test_ranges_without_a_model() -> None:
    made = Space.of(
        HyperParameters, {}, {"epochs": 3}, parse_ranges(["lr=1e-4..1:log", "opt=sgd,adam", "on=true,false"])
    )
    assert [(view.path, view.kind) for view in made.searched] == [("lr", "float"), ("opt", "choice"), ("on", "choice")]
    assert made.values({"lr": 0.1, "opt": "sgd", "on": True}) == {"epochs": 3, "lr": 0.1, "opt": "sgd", "on": True}


@pytest.mark.parametrize(
    "word",
    ["lr", "lr=", "lr=1", "lr=1..", "lr=a..b", "lr=1..0", "lr=0..1:log", "lr=nan..1", "lr=0..inf", "lr=0..1:2",
     "a b=1..2", "opt=sgd,sgd", "lr=0..1:0"],
)  # fmt: skip
def test_a_range_that_cannot_be_meant_is_named(word: str) -> None:
    with pytest.raises(PlanError, match=r"--space") as caught:
        parse_ranges([word])
    assert word in str(caught.value)


def test_a_range_beyond_the_models_or_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(PlanError, match="lr: Input should be less than or equal to 1"):
        space(parse_ranges(["lr=0.1..10"]))
    with pytest.raises(PlanError, match="opt: Input should be 'sgd' or 'adam'"):
        space(parse_ranges(["opt=sgd,rms"]))
    with pytest.raises(PlanError, match="did you mean steps"):
        space(parse_ranges(["step=1..2"]))


def test_an_empty_space_says_what_to_do() -> None:
    with pytest.raises(PlanError, match="nothing to search: no hyperparameter has a range; give ranges with"):
        Space.of(HyperParameters, {}, {"lr": 1}, {})
    with pytest.raises(PlanError, match="nothing to search: no hyperparameter of Plain has a range"):
        Space.of(HyperParameters.of({"lr": 0.1}, "Plain"), {}, {}, {})
    with pytest.raises(PlanError, match="lr, opt of Both have values given; leave one out"):
        Space.of(
            HyperParameters.of({"lr": between(0, 1, default=0), "opt": choice(1, 2)}, "Both"),
            {},
            {"lr": 1, "opt": 1},
            {},
        )


def test_a_value_and_a_range_for_one_name_are_told() -> None:
    with pytest.raises(PlanError, match="lr: both a value and a range"):
        space(parse_ranges(["lr=0.1..0.2"]), lr=0.1)
    with pytest.raises(PlanError, match="lr: both a value and a range"):
        Space.of(HyperParameters, {}, {"lr": 1}, parse_ranges(["lr=0..1"]))
