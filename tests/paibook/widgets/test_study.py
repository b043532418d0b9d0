"""The view of a study: live state, messages, and the figure that stays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paibook.widgets import study
from paibook.widgets.figure import VEGALITE
from paibook.widgets.study import StudyView
from paibook.widgets.study_figure import place, study_bundle, study_text, vegalite

FIELDS = [
    {"path": "lr", "kind": "float", "low": 0.01, "high": 1.0, "log": True, "choices": []},
    {"path": "opt", "kind": "choice", "low": None, "high": None, "log": False, "choices": ["sgd", "adam", "lion"]},
    {"path": "on", "kind": "bool", "low": None, "high": None, "log": False, "choices": []},
]


def trial(number: int, value: float | None, state: str = "done", **extra: Any) -> dict[str, Any]:
    params = {"lr": 0.1, "opt": "adam", "on": True}
    plain = {"number": number, "state": state, "params": params, "value": value, "curve": [2.0, None, 1.0]}
    return {**plain, "run": "r", "seconds": 1.0, "error": "", **extra}


def snapshot(*trials: dict[str, Any], best: int | None = None, **extra: Any) -> dict[str, Any]:
    plain = {"name": "s", "metric": "loss", "direction": "minimize", "wanted": 4, "running": True, "fields": FIELDS}
    return {**plain, "trials": list(trials), "best": best, "importance": {}, **extra}


SOME = snapshot(
    trial(0, 3.0), trial(1, 1.0), trial(2, 9.0, "pruned"), trial(3, None, "failed", error="<b>"), best=1,
    importance={"lr": 0.75, "opt": 0.25},
)  # fmt: skip


def test_the_text_has_the_best_trials_first_and_what_mattered() -> None:
    lines = study_text(SOME).splitlines()
    assert lines[0] == "s: 4 of 4 trials · 1 pruned · 1 failed · best loss 1 in trial 1"
    assert lines[1].split() == ["trial", "state", "loss", "lr", "opt", "on"]
    assert [line.split()[0] for line in lines[2:6]] == ["1", "0", "2", "3"]
    assert lines[-1] == "importance: lr 75%, opt 25%"
    many = study_text(snapshot(*(trial(i, 1.0) for i in range(30)), best=0))
    assert "and 20 more trials" in many


def test_the_figure_has_the_best_so_far_the_lines_and_the_importance() -> None:
    shown = study_bundle(SOME)
    assert set(shown) == {VEGALITE, "image/svg+xml", "text/plain"}
    history, lines, bars = shown[VEGALITE]["concat"]
    assert [record["best"] for record in history["data"]["values"]] == [3.0, 1.0, 1.0]
    places = {record["axis"]: record["place"] for record in lines["layer"][0]["data"]["values"] if record["trial"] == 1}
    assert places == {"lr": 0.5, "opt": 0.5, "on": 1.0, "loss": 0.0}
    assert [record["share"] for record in bars["data"]["values"]] == [0.75, 0.25]
    json.dumps(shown)


def test_more_is_better_where_it_is() -> None:
    better = snapshot(trial(0, 1.0), trial(1, 3.0), trial(2, 2.0), best=1, direction="maximize")
    history = vegalite(better)["concat"][0]
    assert [record["best"] for record in history["data"]["values"]] == [1.0, 3.0, 3.0]
    assert study_text(better).splitlines()[2].split()[0] == "1"


def test_without_a_value_there_is_only_text() -> None:
    assert set(study_bundle(snapshot(trial(0, None, "failed")))) == {"text/plain"}
    assert set(study_bundle(snapshot(trial(0, 1.0), best=0))) == {VEGALITE, "image/svg+xml", "text/plain"}


def test_places_on_an_axis() -> None:
    assert [place(FIELDS[1], option) for option in ("sgd", "adam", "lion")] == [0.0, 0.5, 1.0]
    assert [place(FIELDS[2], option) for option in (False, True)] == [0.0, 1.0]
    assert place({**FIELDS[0], "log": False, "low": 0, "high": 4}, 1) == 0.25


@pytest.fixture
def calls() -> list[Any]:
    return []


@pytest.fixture
def view(calls: list[Any]) -> StudyView:
    return StudyView(SOME, lambda: calls.append("stop"), calls.append)


def test_buttons_call_back_while_it_goes_on(view: StudyView, calls: list[Any]) -> None:
    for content in ({"kind": "stop_trial", "number": 2}, {"kind": "stop_trial", "number": "2"}, {"kind": "x"}, "stop"):
        view._receive(view, content, [])  # type: ignore[arg-type]
    view._receive(view, {"kind": "stop"}, [])
    assert calls == [2, "stop"]
    view.show({**SOME, "running": False})
    view._receive(view, {"kind": "stop"}, [])
    view._receive(view, {"kind": "stop_trial", "number": 2}, [])
    assert calls == [2, "stop"]


def test_state_is_bounded_and_keeps_the_best(view: StudyView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "SHOWN", 10)
    view.show(snapshot(*(trial(i, 1.0 + i) for i in range(50)), best=0))
    assert [one["number"] for one in view.study["trials"]] == [0, *range(40, 50)]
    assert view.headline.startswith("50 of 50 trials")
