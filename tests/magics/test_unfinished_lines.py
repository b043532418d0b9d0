"""Lines shown while they grow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from paibook_magics import unfinished_lines as module
from paibook_magics.console import Console
from paibook_magics.unfinished_lines import UnfinishedLines

if TYPE_CHECKING:
    from conftest import Notebook

TQDM = """%%pai_allreduce -n 2
import time
from tqdm import tqdm
print("begin")
for i in tqdm(range(12), desc="fit", mininterval=0.05):
    time.sleep(0.1)
print("end")
"""


class Screen:
    """A front end's displays: what each shows now, and how often it was drawn."""

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self.draws = 0

    def display(self, bundle: dict[str, Any], raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        self.blocks.append("")
        index = len(self.blocks) - 1

        def update(bundle: dict[str, Any], raw: bool) -> None:
            self.blocks[index] = bundle["text/plain"]
            self.draws += 1

        update(bundle, raw)
        return SimpleNamespace(update=update)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    shown = Screen()
    monkeypatch.setattr(module, "get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.setattr(module, "display", shown.display)
    monkeypatch.setattr(module, "DRAW_SECONDS", 0.0)
    return shown


def test_a_row_per_rank_replaced_in_place(screen: Screen) -> None:
    lines = UnfinishedLines()
    lines.update({("stderr", "[rank 10] "): "5%", ("stderr", "[rank 2] "): "1%"})
    lines.update({("stderr", "[rank 10] "): "6%", ("stderr", "[rank 2] "): "1%"})
    assert screen.blocks == ["[rank 2] 1%\n[rank 10] 6%"]


def test_a_line_that_was_shown_stays_where_it_was(screen: Screen) -> None:
    lines = UnfinishedLines()
    lines.update({("stderr", "[rank 0] "): "5%"})
    assert lines.end("stderr", "[rank 0] ", "100%")
    assert not lines.end("stderr", "[rank 0] ", "next")
    lines.update({("stderr", "[rank 0] "): "7%"})
    assert screen.blocks == ["[rank 0] 100%", "[rank 0] 7%"]


def test_a_rank_that_is_ahead_adds_a_row(screen: Screen) -> None:
    lines = UnfinishedLines()
    lines.update({("stdout", "[rank 0] "): "a", ("stdout", "[rank 1] "): "b"})
    lines.end("stdout", "[rank 0] ", "a.")
    lines.update({("stdout", "[rank 0] "): "c", ("stdout", "[rank 1] "): "b"})
    lines.end("stdout", "[rank 1] ", "b.")
    lines.end("stdout", "[rank 0] ", "c.")
    assert screen.blocks == ["[rank 0] a.\n[rank 1] b.\n[rank 0] c."]


def test_bars_that_remove_themselves_leave_no_gaps(screen: Screen) -> None:
    lines = UnfinishedLines()
    for _ in range(3):
        lines.update({("stderr", "[rank 0] "): "50%"})
        lines.update({("stderr", "[rank 0] "): ""})
        lines.close()
    lines.update({("stderr", "[rank 0] "): "50%"})
    assert screen.blocks == ["[rank 0] 50%"]


def test_nothing_is_drawn_without_a_change_nor_too_often(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = UnfinishedLines()
    for _ in range(5):
        lines.update({("stderr", "[rank 0] "): "5%"})
    assert screen.draws == 1
    monkeypatch.setattr(module, "DRAW_SECONDS", 3600.0)
    lines.update({("stderr", "[rank 0] "): "6%"})
    assert screen.draws == 1


def test_a_long_row_shows_its_end_until_it_is_whole(screen: Screen) -> None:
    lines = UnfinishedLines()
    lines.update({("stdout", "[rank 0] "): "." * 1000 + "!"})
    assert screen.blocks[0].endswith(".!")
    assert len(screen.blocks[0]) < 320
    lines.end("stdout", "[rank 0] ", "." * 1000)
    assert screen.blocks[0] == "[rank 0] " + "." * 1000


def test_a_terminal_shows_lines_when_they_are_whole(monkeypatch: pytest.MonkeyPatch, screen: Screen) -> None:
    monkeypatch.setattr(module, "get_ipython", lambda: None)
    lines = UnfinishedLines()
    lines.update({("stderr", "[rank 0] "): "5%"})
    assert not lines.end("stderr", "[rank 0] ", "100%")
    assert screen.blocks == []


def test_the_console_prints_no_line_twice(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from paibook.clusters.contract import Event
    from paibook_magics import console as console_module

    monkeypatch.setattr(console_module, "WAIT_SECONDS", 0.0)
    console = Console()
    for text in ("a", "b\nwhole\nc", "d"):
        console.on_event(Event("stdout", "worker", 0, text))
        console.tick()
    console.finish()
    assert screen.blocks == ["[rank 0] ab", "[rank 0] cd"]
    assert capsys.readouterr().out == "[rank 0] whole\n"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_tqdm_on_two_ranks_is_live_and_shown_once(notebook: Notebook) -> None:
    notebook.run("%%pai_allreduce -n 2\nfrom tqdm import tqdm")
    outcome = notebook.run(TQDM)
    assert outcome.status == "ok"
    bars = [display["text/plain"] for display in outcome.displays]
    assert len(bars) >= 3
    assert any("%" in bar and "100%" not in bar for bar in bars)
    assert [line.split("%")[0] for line in bars[-1].splitlines()] == ["[ranks 0-1] fit: 100"]
    assert "12 of 12" in bars[-1]
    assert "fit" not in outcome.stdout + outcome.stderr
    said = [f"[rank {rank}] {word}" for rank in (0, 1) for word in ("begin", "end")]
    assert sorted(outcome.stdout.splitlines()) == said
