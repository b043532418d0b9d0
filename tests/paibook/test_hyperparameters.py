"""Hyperparameters from a magic's line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from paibook.errors import PlanError
from paibook.hyperparameters import HyperParameters

JSON_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


class Adam(HyperParameters):
    lr: float = Field(0.1, gt=0)
    steps: int = 10


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("1e-3", 1e-3),
        ("64", 64),
        ("true", True),
        ("True", True),
        ("False", False),
        ("None", None),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('{"a": 1}', {"a": 1}),
        ("adam", "adam"),
        ("a=b", "a=b"),
        ("", ""),
        ("-1", -1),
    ],
)
def test_a_value_is_json_where_it_parses_as_json_else_text(text: str, value: Any) -> None:
    hp = HyperParameters.from_pairs([f"x={text}"])
    assert hp.values() == {"x": value}
    assert type(hp.x) is type(value)


@settings(max_examples=50)
@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True), JSON_VALUES | st.lists(JSON_VALUES)))
def test_json_values_come_back(values: dict[str, Any]) -> None:
    known = {name: value for name, value in values.items() if not hasattr(HyperParameters, name)}
    pairs = [f"{name}={json.dumps(value)}" for name, value in known.items()]
    assert HyperParameters.from_pairs(pairs).values() == known


@pytest.mark.parametrize("word", ["lr", "=0.1", "1x=2", "a-b=2", "", "lr 0.1"])
def test_a_word_that_is_no_pair_is_named(word: str) -> None:
    with pytest.raises(PlanError, match=r"--hp takes name=value words such as lr=0\.1") as caught:
        HyperParameters.from_pairs(["ok=1", word])
    assert repr(word) in str(caught.value)


def test_the_latest_value_of_a_name_counts() -> None:
    assert HyperParameters.from_pairs(["lr=1", "lr=2"]).values() == {"lr": 2}


def test_a_typed_model_gives_defaults_and_checks() -> None:
    assert Adam.from_pairs(["lr=0.5"]).values() == {"lr": 0.5, "steps": 10}
    with pytest.raises(PlanError, match=r"^--hp lr: Input should be greater than 0$"):
        Adam.from_pairs(["lr=-1"])
    with pytest.raises(PlanError, match="steps"):
        Adam.from_pairs(["steps=many"])


@pytest.mark.parametrize("word", ["values=1", "copy=2", "model_config=3", "from_pairs=4"])
def test_a_name_that_the_model_itself_uses_is_refused(word: str) -> None:
    with pytest.raises(PlanError, match=word.partition("=")[0]):
        HyperParameters.from_pairs([word])


def test_is_frozen() -> None:
    hp = HyperParameters.from_pairs(["lr=1"])
    with pytest.raises(ValidationError):
        hp.lr = 2
