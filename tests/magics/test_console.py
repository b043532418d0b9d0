"""What a cell shows while its run goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.clusters.contract import Event, EventKind
from paibook.runtimes.contract import Progress
from paibook_magics import console as module
from paibook_magics.console import (
    Console,
    LabelledLines,
    ProgressDisplay,
    label_of,
    merge_equal,
    progress_bundle,
    ranges,
)


def say(console: Console, kind: EventKind, data: Any, rank: int = 0, source: str = "worker") -> None:
    console.on_event(Event(kind, source, rank, data))


def plain(value: object) -> dict[str, Any]:
    return {"text/plain": repr(value)}


class TestLabels:
    @pytest.mark.parametrize(
        ("source", "rank", "label"),
        [("worker", 0, "[rank 0] "), ("server", 1, "[server 1] "), ("map", 12, "[map 12] ")],
    )
    def test_who_says_it(self, source: str, rank: int, label: str) -> None:
        assert label_of(Event("stdout", source, rank, "")) == label


class TestLabelledLines:
    def test_a_line_stays_back_until_it_is_whole(self) -> None:
        lines = LabelledLines()
        assert lines.feed("stdout", "a", "one\ntw") == ["one"]
        assert lines.feed("stdout", "b", "other\n") == ["other"]
        assert lines.feed("stderr", "a", "error\n") == ["error"]
        assert lines.feed("stdout", "a", "o\n\n") == ["two", ""]
        assert lines.rest() == []

    def test_what_is_left_at_the_end(self) -> None:
        lines = LabelledLines()
        lines.feed("stdout", "a", "x")
        lines.feed("stderr", "b", "y\rz\r")
        assert lines.rest() == [("stdout", "a", "x"), ("stderr", "b", "z")]
        assert lines.rest() == []

    @pytest.mark.parametrize(
        "chunks",
        [
            ["\r10%", "\r20%", "\r30%\n"],
            ["10%\r", "20%\r", "30%\n"],
            ["10%\r20", "%\r3", "0%\n"],
            ["10%\r20%\r30%\r\n"],
            ["30%\r", "\n"],
        ],
    )
    def test_of_a_line_redrawn_the_last_state_counts(self, chunks: list[str]) -> None:
        lines = LabelledLines()
        assert [line for chunk in chunks for line in lines.feed("stdout", "a", chunk)] == ["30%"]
        assert lines.rest() == []

    @given(st.lists(st.text(st.sampled_from("ab\r\n"), max_size=5), max_size=6))
    def test_where_chunks_are_cut_makes_no_difference(self, chunks: list[str]) -> None:
        whole, cut = LabelledLines(), LabelledLines()
        expected = whole.feed("stdout", "a", "".join(chunks))
        assert [line for chunk in chunks for line in cut.feed("stdout", "a", chunk)] == expected
        assert cut.rest() == whole.rest()


class TestOutput:
    def test_every_line_is_labelled(self, capsys: pytest.CaptureFixture[str]) -> None:
        console = Console()
        say(console, "stdout", "a\nb", 0)
        say(console, "stdout", "c\n", 1)
        say(console, "stderr", "bad\n", 1)
        say(console, "stdout", "said\n", 2, "server")
        console.tick()
        assert capsys.readouterr() == ("[rank 0] a\n[rank 1] c\n[server 2] said\n", "[rank 1] bad\n")
        console.finish()
        assert capsys.readouterr() == ("[rank 0] b\n", "")

    def test_grouped_output_comes_rank_by_rank_at_the_end(self, capsys: pytest.CaptureFixture[str]) -> None:
        console = Console(grouped=True)
        for line in range(2):
            for rank in (10, 2, 0):
                say(console, "stdout", f"{line}\n", rank)
        say(console, "stdout", "s\n", 1, "server")
        say(console, "stdout", "unfinished", 2)
        console.tick()
        assert capsys.readouterr().out == ""
        console.finish()
        assert capsys.readouterr().out.splitlines() == [
            "[rank 0] 0",
            "[rank 0] 1",
            "[rank 2] 0",
            "[rank 2] 1",
            "[rank 2] unfinished",
            "[rank 10] 0",
            "[rank 10] 1",
            "[server 1] s",
        ]

    def test_results_come_last_and_equal_ones_together(self, capsys: pytest.CaptureFixture[str]) -> None:
        console = Console()
        for rank, value in [(1, 7), (0, 7), (2, 8)]:
            say(console, "result", plain(value), rank)
        say(console, "stdout", "text\n", 2)
        console.finish()
        assert capsys.readouterr().out == "[rank 2] text\n[ranks 0-1] 7\n[rank 2] 8\n"

    def test_a_result_of_several_lines_starts_on_its_own(self, capsys: pytest.CaptureFixture[str]) -> None:
        console = Console()
        say(console, "result", {"text/plain": "a\nb"})
        console.finish()
        assert capsys.readouterr().out == "[rank 0]\na\nb\n"

    def test_neighbouring_lines_leave_as_one_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        written: list[tuple[str, str]] = []
        console = Console()
        monkeypatch.setattr(console, "_write", lambda stream, text: written.append((stream, text)))
        for i in range(100):
            say(console, "stdout", f"{i}\n")
        say(console, "stderr", "x\n")
        console.tick()
        assert [(stream, text.count("\n")) for stream, text in written] == [("stdout", 100), ("stderr", 1)]

    def test_events_may_come_from_any_thread(self, capsys: pytest.CaptureFixture[str]) -> None:
        console = Console()

        def work(rank: int) -> None:
            for i in range(200):
                say(console, "stdout", f"{i}\n", rank)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            console.tick()
        console.finish()
        shown = capsys.readouterr().out.splitlines()
        assert len(shown) == 800
        assert [line for line in shown if line.startswith("[rank 3]")] == [f"[rank 3] {i}" for i in range(200)]


class TestCap:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "SHOWN_CHARACTERS", 120)

    def test_output_beyond_is_cut_at_a_line_and_said_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        console = Console()
        for i in range(50):
            say(console, "stdout", f"line {i}\n")
            console.tick()
        console.finish()
        *kept, last = capsys.readouterr().out.splitlines()
        assert kept == [f"[rank 0] line {i}" for i in range(len(kept))]
        assert 5 <= len(kept) <= 8
        assert "is not shown here" in last

    def test_one_large_message_is_cut_inside(self, capsys: pytest.CaptureFixture[str]) -> None:
        console = Console()
        say(console, "stdout", "".join(f"line {i}\n" for i in range(50)))
        console.finish()
        out = capsys.readouterr().out
        assert "[rank 0] line 5\n" in out
        assert out.count("is not shown here") == 1
        assert "line 40" not in out

    def test_what_fits_exactly_is_shown_whole_and_more_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        console = Console()
        say(console, "stdout", "x" * (120 - len("[rank 0] \n")) + "\n")
        console.tick()
        out = capsys.readouterr().out
        assert (len(out), "not shown" in out) == (120, False)
        say(console, "stdout", "more\n")
        console.finish()
        assert "is not shown here" in capsys.readouterr().out

    def test_a_line_longer_than_all_room(self, capsys: pytest.CaptureFixture[str]) -> None:
        console = Console()
        say(console, "stdout", "x" * 500 + "\n")
        say(console, "stdout", "after\n")
        console.finish()
        out = capsys.readouterr().out
        assert out.count("is not shown here") == 1
        assert "after" not in out

    def test_results_are_shown_all_the_same(self, capsys: pytest.CaptureFixture[str]) -> None:
        console = Console()
        say(console, "stdout", "x\n" * 500)
        say(console, "result", plain(7))
        console.finish()
        assert capsys.readouterr().out.endswith("[rank 0] 7\n")

    def test_says_where_the_rest_is(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        from paibook.plan import Plan
        from paibook.program import Program
        from paibook.run import Run, RunRecord

        plan = Plan("ps", Program(""))
        console = Console()
        console.watch(Run(RunRecord("id", "", "ps", "inline", "running", 0.0), plan, tmp_path, {}))
        say(console, "stdout", "x\n" * 500)
        console.finish()
        assert f"all of it is in {tmp_path / 'output.jsonl'}" in capsys.readouterr().out


class TestMerging:
    def test_equal_results_are_one(self) -> None:
        results = {f"[rank {rank}] ": plain(rank // 3) for rank in (3, 0, 2, 1, 10)}
        assert merge_equal(results) == [
            ("[ranks 0-2] ", plain(0)),
            ("[rank 3] ", plain(1)),
            ("[rank 10] ", plain(3)),
        ]

    def test_every_representation_has_to_be_equal(self) -> None:
        results = {"[rank 0] ": {"text/plain": "x", "text/html": "a"}, "[rank 1] ": {"text/plain": "x"}}
        assert [label for label, _bundle in merge_equal(results)] == ["[rank 0] ", "[rank 1] "]

    def test_nothing(self) -> None:
        assert merge_equal({}) == []

    @pytest.mark.parametrize(
        ("numbers", "text"),
        [
            ([], ""),
            ([3], "3"),
            ([0, 1], "0-1"),
            ([2, 0, 1, 5], "0-2, 5"),
            ([0, 2, 4], "0, 2, 4"),
            ([8, 9, 1], "1, 8-9"),
        ],
    )
    def test_ranges(self, numbers: list[int], text: str) -> None:
        assert ranges(numbers) == text

    @given(st.sets(st.integers(0, 40)))
    def test_ranges_name_every_number_once(self, numbers: set[int]) -> None:
        named: list[int] = []
        for part in ranges(list(numbers)).split(", ") if numbers else ():
            first, _, last = part.partition("-")
            named += range(int(first), int(last or first) + 1)
        assert named == sorted(numbers)


class TestProgress:
    def test_the_summary_names_every_stage(self) -> None:
        progress = ProgressDisplay(0.0)
        progress.update(Progress("map", 4, 8))
        progress.update(Progress("map", 8, 8))
        progress.update(Progress("reduce", 1234, None, "records"))
        assert progress.summary().startswith("map 8 tasks · reduce 1,234 records · ")
        assert progress.summary().endswith(" s")

    def test_nothing_is_drawn_before_its_time(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = ProgressDisplay(3600)
        progress.update(Progress("map", 1, 2))
        progress.tick()
        progress.finish()
        assert capsys.readouterr().out == ""

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

    def test_a_bar_as_text_and_html(self) -> None:
        bundle = progress_bundle([(Progress("map", 3, 12), 1.5), (Progress("<b>", 5, None, "MB"), 2.0)])
        first, second = bundle["text/plain"].splitlines()
        assert first.startswith("map:  25%")
        assert "3/12" in first
        assert "5 MB" in second
        assert '<progress style="width:16em" max="12" value="3">' in bundle["text/html"]
        assert "3 / 12 tasks" in bundle["text/html"]
        assert "&lt;b&gt;" in bundle["text/html"]
        assert "<b>" not in bundle["text/html"]

    @pytest.mark.parametrize(("done", "total"), [(0, 0), (0, 5), (2.5, 5), (7, 5)])
    def test_odd_numbers_draw_too(self, done: float, total: float) -> None:
        assert "map" in progress_bundle([(Progress("map", done, total), 0.0)])["text/plain"]
