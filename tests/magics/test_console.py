"""What a cell shows while its run goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from paibook.clusters.contract import Event, EventKind
from paibook_magics import console as module
from paibook_magics.console import Console

if TYPE_CHECKING:
    from conftest import Notebook


def say(console: Console, kind: EventKind, data: Any, rank: int = 0, source: str = "worker") -> None:
    console.on_event(Event(kind, source, rank, data))


def plain(value: object) -> dict[str, Any]:
    return {"text/plain": repr(value)}


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
        assert f"more of it is in {tmp_path / 'output.jsonl'}" in capsys.readouterr().out


LATE = """%%pai_allreduce -n 2
import threading
asked = threading.Event()
def late():
    asked.wait(60)
    print("late", rank, flush=True)
threading.Thread(target=late, daemon=True).start()
threading.Timer(0.5, asked.set).start()
"""
HEARD = """
import time
run = get_ipython().paibook.session.runs[-1]
deadline = time.monotonic() + 20
while run.stdout.count("late") < 2 and time.monotonic() < deadline:
    time.sleep(0.05)
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_a_rank_prints_after_the_cell_is_in_the_runs_log(notebook: Notebook) -> None:
    notebook.run(LATE)
    notebook.run(HEARD)
    assert notebook.value("run.stdout") == repr("[worker 0] late 0\n[worker 1] late 1\n")
    assert notebook.run("%%pai_allreduce -n 2\nrank").stdout.splitlines() == ["[rank 0] 0", "[rank 1] 1"]
