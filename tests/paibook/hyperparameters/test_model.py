"""The typed model, from a magic's line, from a dict of defaults and from a notebook's parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from paibook.errors import PlanError
from paibook.hyperparameters import HyperParameters, between, choice
from paibook.hyperparameters.model import Group
from paibook.hyperparameters.values import flat, nested, words

JSON_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


class Adam(HyperParameters):
    lr: float = Field(0.1, gt=0)
    steps: int = 10


class Schedule(HyperParameters):
    warmup: int = between(0, 100, default=5)
    kind: Literal["cosine", "linear"] = "linear"


class Training(HyperParameters):
    lr: float = between(1e-5, 1.0, default=0.1, log=True)
    name: str = "mine"
    schedule: Schedule = Schedule(kind="cosine")


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
    # An object is also read by attribute, as a nested group.
    assert type(hp.x) is (Group if isinstance(value, dict) else type(value))


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


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-Infinity", "[1, NaN]"])
@pytest.mark.parametrize("model", [HyperParameters, Adam])
def test_a_number_that_is_not_finite_is_refused(text: str, model: type[HyperParameters]) -> None:
    with pytest.raises(PlanError, match=r"--hp lr=.*finite number"):
        model.from_pairs([f"lr={text}"])


def test_out_of_range_and_of_the_wrong_type_are_told_together() -> None:
    with pytest.raises(PlanError) as caught:
        Training.from_pairs(["lr=2", "schedule.warmup=soon", "schedule.kind=cubic"])
    said = str(caught.value)
    assert "lr: Input should be less than or equal to 1" in said
    assert "schedule.warmup: Input should be a valid integer" in said
    assert "schedule.kind: Input should be 'cosine' or 'linear'" in said


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("lrr=1", "did you mean lr?"),
        ("zzz=1", "it has lr, name, schedule"),
        ("schedule.warm=1", "did you mean warmup?"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(word: str, hint: str) -> None:
    with pytest.raises(PlanError, match="has no such hyperparameter") as caught:
        Training.from_pairs([word])
    assert hint in str(caught.value)


def test_groups_are_reached_by_dotted_names_and_keep_the_rest_of_their_default() -> None:
    hp = Training.from_pairs(["schedule.warmup=7"])
    assert hp.values() == {"lr": 0.1, "name": "mine", "schedule": {"warmup": 7, "kind": "cosine"}}
    on_a_rank = HyperParameters(**hp.values())
    assert (on_a_rank.schedule.warmup, on_a_rank.schedule["kind"]) == (7, "cosine")
    with pytest.raises(AttributeError, match="no hyperparameter 'warm'; it has warmup, kind"):
        on_a_rank.schedule.warm
    assert on_a_rank.values() == hp.values()


def test_text_stays_text_where_the_model_takes_text() -> None:
    assert Training.from_pairs(["name=1"]).name == "1"
    assert Training.from_pairs(["name=nan"]).name == "nan"


@settings(max_examples=50)
@given(st.dictionaries(st.from_regex(r"x[a-z0-9]{0,8}", fullmatch=True), JSON_VALUES | st.text()))
def test_words_give_the_values_back(values: dict[str, Any]) -> None:
    assert HyperParameters.from_pairs(words(values)).values() == values
    assert nested(flat(values)) == values


class TestDefaults:
    def test_a_dict_of_defaults_is_a_typed_model(self) -> None:
        made = HyperParameters.of(
            {"lr": between(0.0, 1.0, default=0.5), "opt": choice("sgd", "adam"), "n": 3, "deep": {"x": 1.5, "on": True}}
        )
        assert made().values() == {"lr": 0.5, "opt": "sgd", "n": 3, "deep": {"x": 1.5, "on": True}}
        assert made.from_pairs(["opt=adam", "deep.x=2"]).values()["deep"] == {"x": 2.0, "on": True}
        for word in ("opt=rms", "n=0.5", "deep.x=a", "lr=2", "m=1"):
            with pytest.raises(PlanError, match=rf"--hp .*{word.partition('=')[0]}"):
                made.from_pairs([word])

    def test_a_whole_range_is_of_whole_numbers(self) -> None:
        with pytest.raises(PlanError, match="n: Input should be a valid integer"):
            HyperParameters.of({"n": between(1, 9, default=3)}).from_pairs(["n=2.5"])

    @pytest.mark.parametrize(
        ("defaults", "said"),
        [
            ({"a b": 1}, "'a b'"),
            ({"copy": 1}, "hp.copy means something else"),
            ({"x": object()}, "the default of x, of type object"),
            ({"x": float("nan")}, "finite"),
            ({"x": between(0, 1, default=3)}, "x: Input should be less than or equal to 1"),
        ],
    )
    def test_what_cannot_be_meant_is_named(self, defaults: dict[str, Any], said: str) -> None:
        with pytest.raises(PlanError, match=said):
            HyperParameters.of(defaults)

    @pytest.mark.parametrize(
        "arguments",
        [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)],
    )
    def test_an_empty_or_endless_range_is_refused(self, arguments: tuple[float, float]) -> None:
        with pytest.raises(PlanError, match="two finite numbers"):
            between(*arguments)

    def test_a_logarithm_or_a_step_that_cannot_be_is_refused(self) -> None:
        with pytest.raises(PlanError, match="begins above 0"):
            between(0, 1, log=True)
        with pytest.raises(PlanError, match="a step above 0"):
            between(0, 1, step=2)
        with pytest.raises(PlanError, match="at least two different values"):
            choice("one")


class TestParameters:
    def test_papermills_values_come_in_by_the_parameters_cell(self, tmp_path: Path) -> None:
        import nbformat
        import papermill

        use = (
            "from paibook.hyperparameters import HyperParameters, between\n"
            "M = HyperParameters.of({'lr': between(0.0, 1.0, default=0.1), 'schedule': {'warmup': 5}})\n"
            "print(M.from_variables(globals()).values())"
        )
        made = HyperParameters.of({"lr": 0.1, "schedule": {"warmup": 5}})
        notebook = nbformat.v4.new_notebook(
            metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
        )
        notebook.cells = [nbformat.from_dict(made().parameters_cell()), nbformat.v4.new_code_cell(use)]
        nbformat.validate(notebook)
        nbformat.write(notebook, tmp_path / "in.ipynb")
        assert set(papermill.inspect_notebook(str(tmp_path / "in.ipynb"))) == {"lr", "schedule"}
        papermill.execute_notebook(
            str(tmp_path / "in.ipynb"),
            str(tmp_path / "out.ipynb"),
            parameters={"lr": 0.25},
            kernel_name="python3",
            progress_bar=False,
        )
        printed = nbformat.read(tmp_path / "out.ipynb", 4).cells[-1].outputs[0].text
        assert printed.strip() == "{'lr': 0.25, 'schedule': {'warmup': 5}}"

    def test_a_wrong_value_is_named(self) -> None:
        with pytest.raises(PlanError, match="parameters: lr: Input should be less than"):
            Training.from_variables({"lr": 3, "other": 1})


def test_the_json_schema_has_ranges_scales_and_no_other_names() -> None:
    schema = Training.model_json_schema()
    assert schema["additionalProperties"] is False
    lr = schema["properties"]["lr"]
    assert (lr["minimum"], lr["maximum"], lr["log"], lr["default"]) == (1e-5, 1.0, True, 0.1)
    assert HyperParameters.model_json_schema()["additionalProperties"] is True
