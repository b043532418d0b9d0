"""Stop conditions: what they accept, what they mean, and what they never do."""

from __future__ import annotations

import pytest

from paibook.errors import PlanError
from paibook.runtimes.ps.until import Until


@pytest.mark.parametrize(
    ("text", "values", "holds"),
    [
        ("loss < 0.3 or epoch >= 20", {"loss": 0.2, "epoch": 1}, True),
        ("loss < 0.3 or epoch >= 20", {"loss": 0.4, "epoch": 20}, True),
        ("loss < 0.3 or epoch >= 20", {"epoch": 19}, False),
        ("loss < 0.3 and epoch >= 20", {"epoch": 20}, False),
        ("not loss > 0.3", {}, False),
        ("not loss > 0.3", {"loss": 0.3}, True),
        ("not (loss > 0.3 and epoch < 5)", {"epoch": 7}, True),
        ("0.1 < loss <= 2 * 0.1", {"loss": 0.2}, True),
        ("loss != loss", {"loss": float("nan")}, True),
        ("-gain < -(1 + 1) / 2", {"gain": 3}, True),
        ("a / b > 1", {"a": 1, "b": 0}, False),
    ],
)
def test_what_a_condition_means(text: str, values: dict[str, float], holds: bool) -> None:
    assert Until.parse(text).holds(values) is holds


@pytest.mark.parametrize(
    "text",
    [
        "loss <", "", "loss = 3", "loss < 0.3; x", "import os", "loss", "3", "True", "loss < True", "loss < 'a'",
        "f(loss) < 1", "since_best < 3", "since_best() > 3", "since_best(loss, 2) > 3",
        "since_best(since_best(loss)) > 3", "since_best(loss)", "loss.real < 1", "loss[0] < 1", "(lambda: 1) < 2",
        "loss in (1, 2)", "loss ** 9 < 1",
        "a < 1 if b < 1 else c < 1", "__import__('os').system('true') < 1", "(x := 3) < 4", "(" * 500,
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_named(text: str) -> None:
    with pytest.raises(PlanError, match="--until"):
        Until.parse(text)


def test_the_names_it_watches_and_what_it_says_at_the_end() -> None:
    until = Until.parse("loss < 0.3 or epoch >= 20 or accuracy > 0.9")
    assert until.names == ("loss", "accuracy")
    assert until.describe({"loss": 0.25, "epoch": 4}) == f"{until.text} (loss = 0.25, epoch = 4)"


@pytest.mark.parametrize(
    "text",
    ["epoch < 0", "seconds + 1 <= 0", "3 < 2", "loss < 0.1 and 1 > 2", "not epoch >= 0", "-clock > 5",
     "epoch * 2 == -2", "not (loss < 1 or 0 < 1)", "since_best(loss) < 0", "3 <= epoch < 0", "1 != 1",
     "epoch / 4 < -1", "seconds > 1e308 * 10"],
)  # fmt: skip
def test_what_can_never_be_true_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="can never be true"):
        Until.parse(text)


@pytest.mark.parametrize(
    "text",
    ["epoch <= 0", "loss - seconds < -3", "1 < 2", "not epoch >= 1", "loss / epoch < 0", "loss == loss", "epoch == 3",
     "not (loss < 1 and 0 < 1)", "loss * epoch < 0", "0 * loss == 0", "epoch < 0 or loss < 1"],
)  # fmt: skip
def test_what_may_be_true_is_not(text: str) -> None:
    assert Until.parse(text).text == text
