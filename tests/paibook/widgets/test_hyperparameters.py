"""The state of the form."""

import json

import pytest

from paibook.errors import PlanError
from paibook.hyperparameters import HyperParameters, between, choice
from paibook.widgets.hyperparameters import HyperParameterForm

MODEL = HyperParameters.of(
    {
        "lr": between(1e-4, 1.0, default=0.1, log=True),
        "steps": 10,
        "opt": choice("sgd", "adam"),
        "sizes": [8, 8],
        "deep": {"on": True, "name": "a"},
    },
    "Model",
)


@pytest.fixture
def form():
    return HyperParameterForm(MODEL, name="model")


def say(form, **content):
    form._receive(form, content, [])


def test_the_state_describes_the_fields_and_their_values(form):
    assert [field["path"] for field in form.fields] == ["lr", "steps", "opt", "sizes", "deep.on", "deep.name"]
    assert form.entered == {"lr": 0.1, "steps": 10, "opt": "sgd", "sizes": [8, 8], "deep.on": True, "deep.name": "a"}
    assert (form.errors, form.line) == ({}, "--hp model")
    json.dumps([form.fields, form.entered])


def test_numbers_come_as_they_were_typed(form):
    for path, value in (("lr", " 0.5 "), ("steps", "20"), ("sizes", "[4, 4]"), ("deep.on", False)):
        say(form, kind="enter", path=path, value=value)
    assert form.hyperparameters.values() == {
        "lr": 0.5, "steps": 20, "opt": "sgd", "sizes": [4, 4], "deep": {"on": False, "name": "a"}
    }  # fmt: skip
    assert form.line == "--hp model lr=0.5 steps=20 'sizes=[4, 4]' deep.on=false"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("lr", "7", "less than or equal to 1"),
        ("lr", "nan", "finite"),
        ("lr", "1e999", "finite"),
        ("lr", "", "a value is needed"),
        ("lr", "fast", "valid number"),
        ("steps", "1.5", "valid integer"),
        ("opt", "rms", "'sgd' or 'adam'"),
        ("sizes", "8", "valid list"),
        ("deep.on", "perhaps", "valid boolean"),
    ],
)
def test_what_is_wrong_is_told_at_its_field_until_it_is_mended(form, path, value, said):
    before = form.entered[path]
    say(form, kind="enter", path=path, value=value)
    assert said in form.errors[path]
    assert form.line == ""
    with pytest.raises(PlanError, match=f"{path}: "):
        _ = form.hyperparameters
    say(form, kind="enter", path=path, value=before)
    assert (form.errors, form.line) == ({}, "--hp model")


def test_what_the_last_run_used_is_compared():
    form = HyperParameterForm(MODEL, {"lr": 0.5}, "model", {"lr": 0.1, "deep": {"name": "b"}, "gone": 1}, "run 1")
    assert form.last == {"lr": 0.1, "deep.name": "b"}
    assert form.differs == ["lr", "deep.name"]
    say(form, kind="last")
    assert form.differs == []
    assert form.line == "--hp model deep.name=b"
    say(form, kind="defaults")
    assert form.differs == ["deep.name"]


def test_run_and_close_call_back_when_nothing_is_wrong():
    form, calls = HyperParameterForm(MODEL, cells=["In[2]", "In[1]"]), []
    say(form, kind="run")
    form.use(lambda words, cell: calls.append((words, cell)), lambda: calls.append("closed"))
    say(form, kind="enter", path="lr", value="9")
    say(form, kind="run")
    assert calls == []
    say(form, kind="enter", path="lr", value="0.2")
    say(form, kind="cell", value=1)
    say(form, kind="cell", value=7)
    say(form, kind="nonsense")
    say(form, kind="enter", path="unknown", value=1)
    say(form, kind="run")
    words = ["lr=0.2", "steps=10", "opt=sgd", "sizes=[8, 8]", "deep.on=true", "deep.name=a"]
    assert calls == [(words, 1)]
    say(form, kind="close")
    say(form, kind="close")
    assert calls[1:] == ["closed"]


def test_the_table_escapes_what_was_typed(form):
    form.enter("deep.name", "<b>&")
    assert "<td>&lt;b&gt;&amp;</td>" in form.static()["text/html"]
    assert "deep.name                <b>&" in form.static()["text/plain"]


def test_a_field_that_holds_a_dict_is_no_group():
    class Shapes(HyperParameters):
        sizes: dict[str, int] = {"a": 1}
        lr: float = 0.1

    form = HyperParameterForm(Shapes, name="shapes")
    assert (form.errors, form.line) == ({}, "--hp shapes")
    form.enter("sizes", '{"b": 2}')
    assert form.hyperparameters.values() == {"sizes": {"b": 2}, "lr": 0.1}
    assert form.line == "--hp shapes sizes.b=2"


def test_a_model_without_fields_has_no_form():
    with pytest.raises(PlanError, match="a form needs a model with fields"):
        HyperParameterForm(HyperParameters)
    with pytest.raises(PlanError, match="the form has no field 'x'; it has lr"):
        HyperParameterForm(MODEL).enter("x", 1)
