"""The plan: frozen, JSON there and back, and the same digest everywhere."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.errors import PlanError
from paibook.plan import RUNTIMES, Plan
from paibook.program import Program
from paibook.resources import Resources

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.dictionaries(
    st.text(), st.recursive(SCALARS, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=5)
)
NAMES = st.lists(st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True), max_size=3).map(tuple)
COUNTS = st.integers(0, 64)
PLANS = st.builds(
    Plan,
    runtime=st.sampled_from(RUNTIMES),
    program=st.builds(Program, st.text(), st.text()),
    resources=st.builds(Resources, COUNTS, COUNTS, COUNTS, st.none() | st.integers(1, 2**40)),
    cluster=st.text(),
    name=st.text(),
    options=JSON,
    hyperparameters=JSON,
    push=NAMES,
    pull=NAMES,
    targets=st.none() | st.lists(COUNTS).map(tuple),
    timeout=st.none() | st.floats(0.1, 1e6),
)
EXAMPLE = Plan(
    "ps",
    Program("\ndef train(ps): pass", "Cell In[1]"),
    Resources(2, 1),
    options={"consistency": "bsp", "until": "epoch >= 2"},
    hyperparameters={"lr": 0.1},
    push=("x",),
    targets=(0, 1),
)


@given(PLANS)
@settings(max_examples=40)
def test_json_there_and_back(plan: Plan) -> None:
    copy = Plan.from_json(plan.to_json())
    assert copy == plan
    assert (copy.digest(), hash(copy)) == (plan.digest(), hash(plan))


def test_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EXAMPLE.cluster = "inline"  # type: ignore[misc]
    with pytest.raises(TypeError):
        EXAMPLE.options["until"] = "never"  # type: ignore[index]
    with pytest.raises(TypeError):
        EXAMPLE.hyperparameters["lr"] = 1  # type: ignore[index]


def test_does_not_follow_the_dict_it_was_made_from() -> None:
    options = {"inputs": ["a.txt"]}
    plan = Plan("mapreduce", Program(""), options=options)
    options["inputs"].append("b.txt")
    assert plan.options["inputs"] == ["a.txt"]


def test_replace_makes_another() -> None:
    other = dataclasses.replace(EXAMPLE, resources=Resources(4, 1))
    assert other.resources.workers == 4
    assert other.options == EXAMPLE.options
    assert other.digest() != EXAMPLE.digest()


def test_the_digest_is_the_same_in_another_process_and_another_order() -> None:
    code = f"from paibook.plan import Plan; print(Plan.from_json({EXAMPLE.to_json()!r}).digest())"
    shuffled = dataclasses.replace(EXAMPLE, options=dict(reversed(list(EXAMPLE.options.items()))))
    assert shuffled.digest() == EXAMPLE.digest()
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert told == EXAMPLE.digest()
    assert len(told) == 12


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(PlanError, match="'gossip'; there are mapreduce, allreduce, ps"):
        Plan("gossip", Program(""))


@pytest.mark.parametrize("name", ["options", "hyperparameters"])
@pytest.mark.parametrize("values", [{"x": {1, 2}}, {"x": object()}, {(1, 2): 3}])
def test_what_is_no_json_is_refused(name: str, values: dict[Any, Any]) -> None:
    with pytest.raises(PlanError, match=f"{name} of a plan must be JSON-able"):
        Plan("ps", Program(""), **{name: values})


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(PlanError, match="options of a plan must be JSON-able"):
        Plan("ps", Program(""), options={"x": loop})


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(EXAMPLE.to_json()), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"plan"',
        "3",
        "{}",
        changed(runtime="gossip"),
        changed(program=None),
        changed(program={"source": "x", "more": 1}),
        changed(resources={"workers": -1}),
        changed(push=None),
        changed(targets=7),
        changed(options=[1]),
        changed(options="ab"),
        changed(surprise=1),
    ],
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        Plan.from_json(text)
