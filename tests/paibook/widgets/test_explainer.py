"""The player, without a page: what it says there is, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from paibook.pictures import PictureLog
from paibook.widgets import explainer as module
from paibook.widgets.explainer import Explainer


def draw(picture: Mapping[str, Any]) -> dict[str, str]:
    return {"text/html": f"<b>{picture['clock']}</b>", "text/plain": f"clock {picture['clock']}"}


class Run:
    """A log of pictures, and how the run stands."""

    def __init__(self, folder: Path) -> None:
        self.state = "running"
        self.now = 100.0
        self.path = folder / "pictures.jsonl"
        self.log = PictureLog(self.path, lambda: self.now)

    def add(self, clock: int, **more: Any) -> None:
        self.log.add({"model": "ps", "clock": clock, **more})
        self.now += 1.5

    def player(self, **options: Any) -> Explainer:
        return Explainer(self.log, draw, lambda: self.state, "Training", "def train(ps): pass", **options)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def ask(player: Explainer, monkeypatch: pytest.MonkeyPatch, **content: Any) -> list[Any]:
    """Send what the page sends; what comes back."""
    sent: list[Any] = []
    monkeypatch.setattr(player, "send", sent.append)
    player._receive(player, content, [])
    return sent


def test_it_says_which_pictures_there_are_and_what_is_new(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    player = run.player()
    assert (player.frames, player.state) == ([], "running")
    run.add(1)
    run.add(2)
    before = player.version
    assert ask(player, monkeypatch, kind="news") == []
    assert player.frames == [[0, 0.0], [1, 1.5]]
    run.state = "done"
    ask(player, monkeypatch, kind="news")
    assert player.state == "done"
    assert player.version == before + 2


def test_pictures_are_drawn_when_they_are_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.add(1, lines={"worker 0": 3})
    run.add(2)
    player = run.player()
    (answer,) = ask(player, monkeypatch, kind="frames", numbers=[0, 1, 99])
    assert answer["asked"] == [0, 1, 99]
    assert answer["frames"] == [
        {"number": 0, "html": "<b>1</b>", "text": "clock 1", "lines": {"worker 0": 3}},
        {"number": 1, "html": "<b>2</b>", "text": "clock 2", "lines": {}},
    ]


def test_an_answer_is_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for clock in range(50):
        run.add(clock)
    (answer,) = ask(run.player(), monkeypatch, kind="frames", numbers=list(range(50)))
    assert len(answer["frames"]) == module.MOST_AT_ONCE


@pytest.mark.parametrize("content", [{}, {"kind": "frames"}, {"kind": "frames", "numbers": "all"}, {"kind": 7}])
def test_what_the_page_would_not_send_is_passed_over(
    run: Run, monkeypatch: pytest.MonkeyPatch, content: dict[str, Any]
) -> None:
    assert ask(run.player(), monkeypatch, **content) == []


def test_a_run_that_another_process_drives_is_followed(run: Run, tmp_path: Path) -> None:
    elsewhere = PictureLog(run.path)
    player = Explainer(elsewhere, draw, lambda: "running", refresh=True)
    run.add(1)
    player.update()
    assert [number for number, _ in player.frames] == [0]


def test_without_a_kernel_there_is_the_last_picture(run: Run) -> None:
    player = run.player()
    assert "no picture yet" in player.static()["text/plain"]
    run.add(1)
    run.add(2)
    run.state = "done"
    player.update()
    assert player.static() == {
        "text/plain": "Training · done\nclock 2",
        "text/html": "<p>Training · done</p><b>2</b>",
    }
