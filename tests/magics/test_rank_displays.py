"""What ranks display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from paibook.clusters.contract import Event
from paibook_magics import rank_displays as module
from paibook_magics.console import Console
from paibook_magics.rank_displays import RankDisplays

if TYPE_CHECKING:
    from conftest import Notebook

HANDLES = """%%pai_allreduce -n 2
from IPython.display import HTML, Image, clear_output, display
handle = display("first", display_id="state")
handle.update(f"second {rank}")
"""
CLEARING = """%%pai_allreduce -n 2
display(Image(b"no image", format="png", width=40))
for i in range(3):
    clear_output(wait=True)
    display(HTML(f"<i>turn {i}</i>"))
"""


class Screen:
    """What each display shows now, and its metadata, in order of appearance."""

    def __init__(self) -> None:
        self.shown: dict[str, dict[str, Any]] = {}
        self.metadata: dict[str, dict[str, Any]] = {}
        self.updates = 0

    def display(self, bundle: dict[str, Any], raw: bool, metadata: dict[str, Any], display_id: str) -> None:
        assert raw
        self.shown[display_id], self.metadata[display_id] = bundle, metadata

    def update(self, bundle: dict[str, Any], raw: bool, metadata: dict[str, Any], display_id: str) -> None:
        self.updates += 1
        self.display(bundle, raw, metadata, display_id)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    drawn = Screen()
    monkeypatch.setattr(module, "display", drawn.display)
    monkeypatch.setattr(module, "update_display", drawn.update)
    return drawn


def html(text: str) -> dict[str, Any]:
    return {"text/plain": "?", "text/html": text}


def test_metadata_arrives_with_the_bundle(screen: Screen) -> None:
    console = Console()
    size = {"image/png": {"width": 40}}
    console.on_event(Event("display", "worker", 0, {"image/png": "data", "text/plain": "?"}, size))
    console.finish()
    assert list(screen.metadata.values()) == [size]


def test_handles_of_ranks_are_told_apart(screen: Screen) -> None:
    console = Console()
    for rank in (0, 1):
        console.on_event(Event("display", "worker", rank, {"text/plain": "first"}, {}, "h"))
        console.on_event(Event("update", "worker", rank, {"text/plain": f"second {rank}"}, {}, "h"))
    console.finish()
    assert [shown["text/plain"] for shown in screen.shown.values()] == ["[rank 0] second 0", "[rank 1] second 1"]


def test_a_later_cell_updates_what_an_earlier_one_displayed(screen: Screen) -> None:
    RankDisplays().show("[rank 0] ", html("a"), {}, "h")
    later = RankDisplays()
    later.update("[rank 0] ", html("b"), {}, "h")
    later.tick()
    assert list(screen.shown.values()) == [html("b")]


def test_of_many_updates_the_last_counts(screen: Screen) -> None:
    displays = RankDisplays()
    for i in range(1000):
        displays.update("[rank 0] ", html(str(i)), {}, "h")
        displays.tick()
    displays.tick(final=True)
    assert screen.updates <= 20
    assert list(screen.shown.values()) == [html("999")]


def test_what_is_displayed_after_a_clear_takes_the_place(screen: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    displays = RankDisplays()
    displays.show("[rank 1] ", html("other"), {})
    for turn in range(3):
        displays.clear("[rank 0] ", wait=True)
        displays.show("[rank 0] ", html(f"a{turn}"), {})
        displays.show("[rank 0] ", html(f"b{turn}"), {}, "h")
    displays.update("[rank 0] ", html("b!"), {}, "h")
    displays.tick()
    assert list(screen.shown.values()) == [html("other"), html("a2"), html("b!")]
    assert capsys.readouterr().out == "[rank 1]\n[rank 0]\n[rank 0]\n"


def test_a_shorter_turn_leaves_nothing_of_the_longer(screen: Screen) -> None:
    displays = RankDisplays()
    displays.show("[rank 0] ", html("a"), {})
    displays.show("[rank 0] ", html("b"), {}, "h")
    displays.clear("[rank 0] ", wait=True)
    displays.show("[rank 0] ", html("c"), {})
    displays.update("[rank 0] ", html("too late"), {}, "h")
    displays.tick()
    assert list(screen.shown.values()) == [html("c"), {}]


def test_a_clear_that_does_not_wait_empties_at_once(screen: Screen) -> None:
    displays = RankDisplays()
    displays.show("[rank 0] ", html("a"), {})
    displays.clear("[rank 0] ", wait=False)
    displays.tick()
    assert list(screen.shown.values()) == [{}]


def test_displays_without_end_are_cut_and_said_once(screen: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    displays = RankDisplays()
    for i in range(3000):
        displays.show("[rank 0] ", html(str(i)), {})
    assert len(screen.shown) < 1001
    assert capsys.readouterr().out.count("not shown") == 1


def test_displayed_text_counts_as_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paibook_magics.console.SHOWN_CHARACTERS", 100)
    console = Console()
    for _ in range(50):
        console.on_event(Event("display", "worker", 0, {"text/plain": "text"}))
    console.finish()
    assert "not shown here" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_handles_and_clearing_on_real_ranks(notebook: Notebook) -> None:
    outcome = notebook.run(HANDLES)
    assert outcome.status == "ok"
    assert {"[rank 0] 'second 0'", "[rank 1] 'second 1'"} <= set(outcome.text.splitlines())
    outcome = notebook.run(CLEARING)
    turns = [display["text/html"] for display in outcome.displays if "text/html" in display]
    assert turns.count("<i>turn 2</i>") == 2
    assert sorted(outcome.stdout.splitlines()) == ["[rank 0]", "[rank 1]"]
