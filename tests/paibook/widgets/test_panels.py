"""What the panels hold and answer, without a page. Where there are GPUs, a fake NVML library
stands for the real one."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paibook.clusters.inline import InlineCluster
from paibook.errors import RunCancelled
from paibook.gpus import Holder, LeaseBook, discover
from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.run import Run
from paibook.session import Session
from paibook.settings import settings
from paibook.widgets import gpus as gpus_module
from paibook.widgets.cluster import ClusterPanel
from paibook.widgets.gpus import GpuPanel, option_words
from paibook.widgets.live_panel import LivePanel, table_bundle
from paibook.widgets.runs import RunsPanel, sparkline, thinned

WAIT = 30


@pytest.fixture
def session(runs_folder: Path) -> Iterator[Session]:
    opened = Session("inline", RunHistory(runs_folder))
    yield opened
    opened.close()


def run(session: Session, source: str, **fields: Any) -> Run:
    started = session.run(Plan("allreduce", Program(source), Resources(2), "inline", **fields))
    started.exception(WAIT)
    return started


def send(panel: LivePanel, **content: Any) -> None:
    """What the page sends, and wait for the answer."""
    before = panel.version
    panel._receive(panel, content, [])
    until(lambda: panel.version > before)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class TestGpus:
    @pytest.fixture
    def cards(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
        """Says which cards there are from now on."""
        file = tmp_path / "cards.json"
        monkeypatch.setenv("FAKE_NVML", str(file))
        monkeypatch.setenv("PAIBOOK_LEASES", str(tmp_path / "leases"))
        monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "fake_nvml"))
        monkeypatch.delitem(sys.modules, "pynvml", raising=False)
        monkeypatch.delitem(sys.modules, "paibook.gpus.nvml", raising=False)
        monkeypatch.delattr("paibook.gpus.nvml", raising=False)
        settings.cache_clear()
        yield lambda *cards: file.write_text(json.dumps(cards)) and None
        settings.cache_clear()
        for name in ("pynvml", "paibook.gpus.nvml"):
            sys.modules.pop(name, None)

    def test_memory_load_and_holders_are_shown(self, cards: Callable[..., None]) -> None:
        cards({"uuid": "GPU-0", "used": 30 * 2**30, "load": 12}, {"uuid": "GPU-1"})
        LeaseBook().take(discover()[:1], Holder.of("job", "nightly"), share=40)
        panel = GpuPanel()
        first, second = panel.state["cards"]
        assert (first["used"], first["load"], first["free"]) == (30 * 2**30, 12, 60)
        assert first["holders"] == [f"job nightly (process {os.getpid()}), 40%"]
        assert second["holders"] == []
        text = panel.static()["text/plain"]
        assert "30.0 GiB" in text
        assert "nightly" in text

    def test_a_card_that_vanishes_stays_and_is_said_to_be_gone(self, cards: Callable[..., None]) -> None:
        cards({"uuid": "GPU-0"}, {"uuid": "GPU-1"})
        panel = GpuPanel()
        cards({"uuid": "GPU-0", "lost": True}, {"uuid": "GPU-1"})
        panel.refresh()
        assert [(card["label"], card["gone"]) for card in panel.state["cards"]] == [("0", True), ("1", False)]
        assert "no longer answers" in panel.static()["text/html"]

    def test_no_gpu_is_said_as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpus_module, "readings", list)
        monkeypatch.setattr(gpus_module, "absent", lambda: "no GPU here: no driver")
        assert GpuPanel().static()["text/plain"] == "no GPU here: no driver"

    def test_picks_become_the_options_of_a_cell(self, cards: Callable[..., None]) -> None:
        cards({"uuid": "GPU-0"}, {"uuid": "GPU-1"})
        panel = GpuPanel()
        panel.picks = [["0", "1"], ["1", "0"]]
        assert panel.words == "-n 2 -g 2 --cards 0,1,1,0"
        panel.picks = [["0"], []]
        assert panel.words == ""

    @pytest.mark.parametrize("picks", [[], [[]], [["0"], []], [["0", "1"], ["0"]]])
    def test_picks_that_no_options_say_have_no_words(self, picks: list[list[str]]) -> None:
        assert option_words(picks) == ""


class TestCluster:
    def test_ranks_with_state_memory_and_work(self, session: Session) -> None:
        run(session, "1")
        go, release = threading.Event(), threading.Event()
        session.cluster.ranks(1).apply(lambda place: (go.set(), release.wait(WAIT))[0])
        go.wait(WAIT)
        panel = ClusterPanel(session)
        release.set()
        assert [(rank["rank"], rank["state"]) for rank in panel.state["ranks"]] == [(0, "busy"), (1, "idle")]
        assert panel.state["ranks"][0]["memory"] > 0
        assert "worker 1" in panel.static()["text/plain"]

    def test_looking_does_not_start_a_cluster_that_is_stopped(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(InlineCluster, "started", lambda self: False)
        monkeypatch.setattr(InlineCluster, "status", lambda self: pytest.fail("it was started"))
        panel = ClusterPanel(session)
        assert panel.state["title"] == "inline: not started; the next cell starts it"


class TestRuns:
    def test_a_run_has_state_duration_and_curve(self, session: Session) -> None:
        run(session, "for step in range(100): pai.log(step=step, loss=1.0 * step)", name="rising")
        (row,) = RunsPanel(session).state["runs"]
        assert (row["name"], row["state"], row["metric"]) == ("rising", "done", "loss")
        assert (len(row["curve"]), row["curve"][0], row["curve"][-1]) == (40, 0.0, 99.0)

    def test_a_run_of_another_session_is_stopped_too(self, session: Session) -> None:
        waits = Plan("allreduce", Program("import time\nwhile True: time.sleep(0.01)"), Resources(1), "inline")
        running = session.run(waits)
        other = Session("inline", history=session.history)
        panel = RunsPanel(other)
        assert panel.state["runs"][0]["can_stop"]
        send(panel, kind="stop", id=running.id)
        assert isinstance(running.exception(WAIT), RunCancelled)
        until(lambda: not RunsPanel(other).state["runs"][0]["can_stop"])

    def test_a_log_is_opened_and_closed(self, session: Session) -> None:
        ran = run(session, "print('said', rank)")
        panel = RunsPanel(session)
        send(panel, kind="log", id=ran.id)
        assert panel.state["log"]["text"].splitlines() == ["[worker 0] said 0", "[worker 1] said 1"]
        send(panel, kind="log", id=ran.id)
        assert panel.state["log"] == {}

    def test_a_run_is_deleted(self, session: Session) -> None:
        ran = run(session, "1")
        panel = RunsPanel(session)
        send(panel, kind="delete", id=ran.id)
        assert panel.state["runs"] == []
        assert not ran.directory.exists()

    def test_what_cannot_be_done_is_said(self, session: Session) -> None:
        panel = RunsPanel(session, resume=lambda run_id: session.resume(run_id) and None)
        ran = run(session, "1")
        send(panel, kind="resume", id=ran.id)
        assert "cannot be resumed: it has nothing left to do" in panel.problem
        send(panel, kind="delete", id="none")
        assert "no run is called 'none'" in panel.problem

    def test_a_running_run_can_be_stopped(self, session: Session) -> None:
        running = session.run(
            Plan("allreduce", Program("import time\nwhile True: time.sleep(0.01)"), Resources(1), "inline")
        )
        panel = RunsPanel(session)
        assert panel.state["runs"][0]["can_stop"]
        send(panel, kind="stop", id=running.id)
        running.exception(WAIT)
        panel.refresh()
        assert (panel.state["runs"][0]["state"], panel.state["runs"][0]["can_stop"]) == ("cancelled", False)


class TestAnswers:
    def test_no_more_than_two_a_second_and_no_thread_is_left(self, session: Session) -> None:
        panel = RunsPanel(session)
        before = panel.version
        for _ in range(50):
            panel._receive(panel, {"kind": "refresh"}, [])
        assert panel.version == before  # the state was just sent
        panel._looked -= 1
        for _ in range(50):
            panel._receive(panel, {"kind": "refresh"}, [])
        until(lambda: panel.version > before)
        until(lambda: not any(thread.name == "paibook-panel" for thread in threading.enumerate()))
        assert panel.version == before + 1

    @pytest.mark.parametrize("content", [None, [], {}, {"kind": 1}, {"kind": None}])
    def test_what_is_no_message_is_ignored(self, session: Session, content: Any) -> None:
        panel = RunsPanel(session)
        panel._receive(panel, content, [])
        assert not any(thread.name == "paibook-panel" for thread in threading.enumerate())


def test_a_table_is_escaped_and_aligned() -> None:
    bundle = table_bundle("<title>", ("a", "b"), [("<1>", "x")])
    assert bundle["text/plain"].splitlines() == ["<title>", "a    b", "<1>  x"]
    assert "<td>&lt;1&gt;</td>" in bundle["text/html"]
    assert "<p>&lt;title&gt;</p>" in bundle["text/html"]


def test_sparklines() -> None:
    assert sparkline([]) == ""
    assert sparkline([5, 5]) == "▁▁"
    assert thinned(list(range(1000)), 3)[::2] == [0, 999]
