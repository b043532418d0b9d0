"""The panel under a running cell."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.runtimes.contract import Progress
from paibook_magics.panel import badges, counters_text, panel
from paibook_magics.stage_meters import Reading, StageMeters

DETAILS = {
    "running": 8,
    "records": 1_240_000,
    "bytes": 45_300_000,
    "backups": 2,
    "retried": 1,
    "spills": 3,
    "spilled_bytes": 120_000_000,
}


def readings() -> list[Reading]:
    meters = StageMeters()
    meters.update(Progress("map", 0, 120), 0)
    meters.update(Progress("reduce", 0, 16), 0)
    meters.update(Progress("map", 48, 120, details=DETAILS), 12.4)
    return meters.read()


class Tree(HTMLParser):
    """The elements of a page, checked to be closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.styles: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.styles += [value or "" for name, value in attributes if name == "style"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] != "style" and data.strip():
            self.texts.append(data)


class TestText:
    def test_every_stage_is_a_line_and_columns_are_aligned(self) -> None:
        first, second = panel(readings(), {})["text/plain"].splitlines()
        assert first == (
            "map     ████████░░░░░░░░░░░░  48/120 tasks  1.2M records  45 MB  100k records/s  ETA 19 s"
            "  2 backups, 1 retried, 3 spills, 120 MB"
        )
        assert second == "reduce  ░░░░░░░░░░░░░░░░░░░░    0/16 tasks"

    def test_counters_and_the_note_are_lines_of_their_own(self) -> None:
        lines = panel(readings(), {"bad_rows": 12, "words": 1234567}, "failed after 3 s")["text/plain"].splitlines()
        assert lines[-2:] == ["counters: bad_rows 12 · words 1,234,567", "failed after 3 s"]

    def test_an_unknown_total_has_a_rate_and_no_bar(self) -> None:
        meters = StageMeters()
        meters.update(Progress("train", 0, None, "clocks"), 0)
        meters.update(Progress("train", 1400, None, "clocks"), 70)
        text = panel(meters.read(), {})["text/plain"]
        assert re.sub(" +", " ", text) == "train 1,400 clocks 20 clocks/s 1 min 10 s"

    @pytest.mark.parametrize(("done", "total"), [(0, 0), (0, 5), (2.5, 5), (7, 5), (3, None)])
    def test_odd_numbers_draw_too(self, done: float, total: float | None) -> None:
        meters = StageMeters()
        meters.update(Progress("map", done, total), 0.0)
        bundle = panel(meters.read(), {})
        assert bundle["text/plain"].startswith("map")
        assert bundle["text/plain"].count("█") <= 20
        assert "<th" in bundle["text/html"]

    def test_no_stage_is_an_empty_panel(self) -> None:
        assert panel([], {})["text/plain"] == ""


class TestHtml:
    def test_says_what_the_text_says(self) -> None:
        tree = Tree(panel(readings(), {"bad_rows": 12}, "failed after 3 s")["text/html"])
        assert tree.texts == [
            *("map", "48/120 tasks", "1.2M records", "45 MB", "100k records/s", "ETA 19 s"),
            *("2 backups", "1 retried", "3 spills, 120 MB"),
            *("reduce", "0/16 tasks", "bad_rows 12", "failed after 3 s"),
        ]
        assert tree.open == []

    def test_the_bar_has_what_is_done_and_what_is_begun(self) -> None:
        assert Tree(panel(readings(), {})["text/html"]).styles == [
            *("width:46.7%", "width:40.0%"),
            *("width:0.0%", "width:0.0%"),
        ]

    @given(st.text(min_size=1), st.text(), st.text())
    def test_names_cannot_break_out(self, name: str, counter: str, note: str) -> None:
        meters = StageMeters()
        meters.update(Progress(name, 1, 2, unit=counter), 0)
        page = panel(meters.read(), {counter: 1}, note)["text/html"]
        plain = panel(meters.read(), {"x": 1}, "x")["text/html"]
        assert page.count("<div") <= plain.count("<div")
        assert "<script" not in page

    def test_colours_are_the_themes(self) -> None:
        page = panel(readings(), {})["text/html"]
        assert "var(--jp-brand-color1" in page
        assert "var(--jp-content-font-color1" in page


class TestBadges:
    @pytest.mark.parametrize(
        ("numbers", "texts"),
        [
            ({}, []),
            ({"backups": 0, "retried": 0, "spilled_bytes": 0}, []),
            ({"backups": 1}, ["1 backup"]),
            ({"retried": 3}, ["3 retried"]),
            ({"spills": 1, "spilled_bytes": 2000}, ["1 spill, 2.0 kB"]),
            ({"spilled_bytes": 2000}, ["spilled 2.0 kB"]),
        ],
    )
    def test_only_what_happened(self, numbers: dict[str, float], texts: list[str]) -> None:
        assert [text for _kind, text in badges(numbers)] == texts


def test_counters_are_whole_numbers() -> None:
    assert counters_text({"a": 0, "b": 1234567}) == "a 0 · b 1,234,567"
