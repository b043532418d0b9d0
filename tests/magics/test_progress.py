"""The progress of a run, drawn in place, and its summary."""

from __future__ import annotations

from typing import Any

import pytest

from paibook.runtimes.contract import Progress
from paibook_magics import progress as module
from paibook_magics.progress import ProgressDisplay

STAGE = {"name": "map", "tasks": 2, "records_in": 4, "bytes_in": 0, "records_out": 4, "bytes_out": 0, "seconds": 0.0}
SUMMARY = {"stages": [STAGE], "seconds": 0.0}


class Screen:
    """Stands for IPython's display: what was shown, and what replaced it."""

    def __init__(self) -> None:
        self.places = 0
        self.shown: list[dict[str, str]] = []

    def display(self, bundle: dict[str, str], raw: bool, display_id: bool) -> Screen:
        assert raw
        assert display_id
        self.places += 1
        self.shown.append(bundle)
        return self

    def update(self, bundle: dict[str, str], raw: bool) -> None:
        assert raw
        self.shown.append(bundle)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    made = Screen()
    monkeypatch.setattr(module, "display", made.display)
    return made


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The clock: its time is under ``"now"``."""
    clock = {"now": 100.0}
    monkeypatch.setattr(module.time, "monotonic", lambda: clock["now"])
    return clock


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        kernel = True

    monkeypatch.setattr(module, "get_ipython", Shell)


class TestDrawing:
    def test_nothing_is_drawn_before_its_time(self, screen: Screen) -> None:
        progress = ProgressDisplay(3600)
        progress.update(Progress("map", 1, 2))
        progress.tick()
        progress.finish()
        assert screen.shown == []

    @pytest.mark.usefixtures("kernel")
    def test_a_notebook_replaces_the_panel_at_most_four_times_a_second(
        self, screen: Screen, now: dict[str, float]
    ) -> None:
        progress = ProgressDisplay(0.0)
        for done in range(1, 101):
            now["now"] += 0.01
            progress.update(Progress("map", done, 100))
            progress.tick()
        assert screen.places == 1
        assert len(screen.shown) == 4

    def test_a_terminal_which_cannot_replace_is_drawn_to_seldom(self, screen: Screen, now: dict[str, float]) -> None:
        progress = ProgressDisplay(0.0)
        for done in range(1, 101):
            now["now"] += 0.25
            progress.update(Progress("map", done, 100))
            progress.tick()
        assert len(screen.shown) == 3

    @pytest.mark.usefixtures("kernel")
    def test_what_has_not_changed_is_not_drawn_again(self, screen: Screen, now: dict[str, float]) -> None:
        progress = ProgressDisplay(0.0)
        progress.update(Progress("map", 1, 2))
        for _ in range(5):
            now["now"] += 1
            progress.tick()
        assert len(screen.shown) == 1


class TestStart:
    def test_a_start_that_took_time_is_said_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = ProgressDisplay(3600)
        progress.update(Progress("start", 0, None, "embedded"))
        progress.tick()
        progress.update(Progress("start", 2.5, None, "embedded"))
        progress.tick()
        progress.tick()
        progress.finish()
        assert capsys.readouterr().out == "started the embedded cluster in 2.5 s\n"

    def test_a_start_that_took_none_is_not(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = ProgressDisplay(3600)
        progress.update(Progress("start", 0.001, None, "inline"))
        progress.finish()
        assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("kernel")
class TestEnd:
    def drawn(self, now: dict[str, float]) -> ProgressDisplay:
        progress = ProgressDisplay(0.0)
        progress.update(Progress("map", 4, 8))
        progress.update(Progress("reduce", 0, 2))
        progress.tick()
        now["now"] += 3
        return progress

    def test_the_summary_takes_the_panels_place(self, screen: Screen, now: dict[str, float]) -> None:
        self.drawn(now).finish("done", SUMMARY)
        assert screen.places == 1
        assert screen.shown[-1]["text/plain"] == "map 2 tasks · 4 records · 0.0 s"
        assert "<details>" in screen.shown[-1]["text/html"]

    def test_the_summary_is_shown_where_there_was_no_panel(self, screen: Screen) -> None:
        ProgressDisplay(3600).finish("done", SUMMARY)
        assert len(screen.shown) == 1

    def test_without_a_summary_the_stages_stay_in_a_line(self, screen: Screen, now: dict[str, float]) -> None:
        self.drawn(now).finish("done")
        assert screen.shown[-1] == {"text/plain": "map 4 tasks · reduce 0 tasks · 3.0 s"}

    @pytest.mark.parametrize(
        ("state", "words"), [("failed", "failed"), ("cancelled", "cancelled"), ("running", "still running")]
    )
    def test_a_run_that_did_not_end_well_keeps_its_panel(
        self, screen: Screen, now: dict[str, float], state: str, words: str
    ) -> None:
        self.drawn(now).finish(state, SUMMARY)
        text = screen.shown[-1]["text/plain"]
        assert "4/8 tasks" in text
        assert text.endswith(f"\n{words} after 3.0 s")


def test_the_line_names_every_stage(now: dict[str, Any]) -> None:
    progress = ProgressDisplay(0.0)
    progress.update(Progress("map", 8, 8))
    assert progress.line() == "8 tasks · 0.0 s"
    progress.update(Progress("reduce", 1234, None, "records"))
    assert progress.line() == "map 8 tasks · reduce 1,234 records · 0.0 s"
