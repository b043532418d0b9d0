"""The run history on disk: listing, finding, deleting; runs whose notebook died."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from paibook.errors import PaibookError
from paibook.history import RunHistory
from paibook.metrics import Metric, MetricStream
from paibook.plan import Plan
from paibook.program import Program
from paibook.run import RunRecord, read_output


@pytest.fixture
def history(tmp_path: Path) -> RunHistory:
    return RunHistory(tmp_path / "runs")


def add(history: RunHistory, run_id: str, state: str = "done", pid: int = 0, started: float | None = None) -> RunRecord:
    directory = history.root / run_id
    directory.mkdir(parents=True)
    started = time.time() if started is None else started
    record = RunRecord(run_id, "", "ps", "inline", state, started, None if state == "running" else started, "", pid)
    record.save(directory)
    return record


def dead_pid() -> int:
    """Process id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        process.wait()
    return process.pid


class TestNewDirectory:
    def test_ids_differ_and_say_what_they_are(self, history: RunHistory) -> None:
        made = [history.new_directory("ps") for _ in range(5)]
        assert len({run_id for run_id, _ in made}) == 5
        for run_id, directory in made:
            assert "-ps-" in run_id
            assert directory == history.directory(run_id)
            assert directory.is_dir()

    def test_two_runs_of_a_second_that_draw_one_number(
        self, history: RunHistory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("paibook.history.time.strftime", lambda _form: "20261126-011714")
        numbers = iter(["859f", "859f", "859f", "0001"])
        monkeypatch.setattr("paibook.history.secrets.token_hex", lambda _bytes: next(numbers))
        made = [history.new_directory("ps")[0] for _ in range(2)]
        assert made == ["20261126-011714-ps-859f", "20261126-011714-ps-0001"]

    def test_only_its_user_may_read_it(self, history: RunHistory) -> None:
        _run_id, directory = history.new_directory("ps")
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(PaibookError, match=r"cannot write the run history in .*file.*; set PAIBOOK_RUNS"):
            RunHistory(tmp_path / "file").new_directory("ps")


class TestListing:
    def test_an_empty_history(self, history: RunHistory) -> None:
        assert list(history) == []

    def test_the_latest_first(self, history: RunHistory) -> None:
        for run_id in ("20260101-000000-ps-aa", "20260301-000000-ps-aa", "20260201-000000-ps-aa"):
            add(history, run_id)
        assert [record.id[4:6] for record in history] == ["03", "02", "01"]

    def test_a_run_whose_notebook_died_has_failed(self, history: RunHistory) -> None:
        add(history, "dead", "running", dead_pid())
        (record,) = history
        assert (record.state, record.error) == ("failed", "its notebook ended before the run did")

    def test_a_process_id_given_to_a_later_process_does_not_count(self, history: RunHistory) -> None:
        add(history, "old", "running", os.getpid(), started=1000.0)
        assert [record.state for record in history] == ["failed"]

    def test_a_run_whose_notebook_lives_is_running(self, history: RunHistory) -> None:
        running = add(history, "alive", "running", os.getpid())
        assert list(history) == [running]

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"7", b'{"id": "x"}', b"\xff\xfe\x00"])
    def test_what_is_no_run_is_passed_over(self, history: RunHistory, content: bytes) -> None:
        kept = add(history, "kept")
        (history.root / "broken").mkdir()
        (history.root / "broken" / "run.json").write_bytes(content)
        (history.root / "empty").mkdir()
        (history.root / "file").write_text("")
        assert list(history) == [kept]

    def test_a_record_is_replaced_at_once(self, history: RunHistory) -> None:
        record = replace(add(history, "run", "running", os.getpid()), state="done", ended=1002.0)
        record.save(history.directory("run"))
        assert list(history) == [record]
        assert [path.name for path in history.directory("run").iterdir()] == ["run.json"]


class TestFind:
    @pytest.fixture(autouse=True)
    def runs(self, history: RunHistory) -> None:
        for run_id in ("20260101-120000-ps-ab12", "20260102-120000-ps-cd34", "20260102-130000-ps-cd56"):
            add(history, run_id)

    @pytest.mark.parametrize("text", ["20260101-120000-ps-ab12", "ab12", "20260101", "12"])
    def test_by_id_end_or_beginning(self, history: RunHistory, text: str) -> None:
        assert history.find(text).id == "20260101-120000-ps-ab12"

    def test_an_id_that_others_end_with_is_itself(self, history: RunHistory) -> None:
        add(history, "ab12")
        assert history.find("ab12").id == "ab12"

    def test_several_that_fit_are_listed(self, history: RunHistory) -> None:
        with pytest.raises(PaibookError) as caught:
            history.find("20260102")
        assert str(caught.value) == ("'20260102' fits several runs: 20260102-130000-ps-cd56, 20260102-120000-ps-cd34")

    def test_none_that_fits_shows_the_latest(self, history: RunHistory) -> None:
        with pytest.raises(PaibookError, match="no run is called 'zz'; the latest are: 20260102-130000-ps-cd56, "):
            history.find("zz")

    def test_nothing_is_found_in_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(PaibookError, match="the latest are: none"):
            RunHistory(tmp_path / "none").find("x")


class TestDelete:
    def test_by_id_or_its_end(self, history: RunHistory) -> None:
        add(history, "20260101-ps-ab12")
        add(history, "20260102-ps-cd34")
        history.delete("20260101-ps-ab12")
        history.delete("cd34")
        assert list(history) == []

    def test_is_refused_while_it_runs(self, history: RunHistory) -> None:
        add(history, "busy", "running", os.getpid())
        with pytest.raises(PaibookError, match="run busy is still running; stop it first"):
            history.delete("busy")
        assert history.directory("busy").is_dir()

    def test_a_run_whose_notebook_died_can_go(self, history: RunHistory) -> None:
        add(history, "dead", "running", dead_pid())
        history.delete("dead")
        assert list(history) == []

    @pytest.mark.parametrize("text", ["", ".", "..", "/"])
    def test_never_takes_more_than_a_run(self, history: RunHistory, text: str) -> None:
        add(history, "only")
        with pytest.raises(PaibookError, match="no run is called"):
            history.delete(text)
        assert history.directory("only").is_dir()


class TestLookingIn:
    def test_plan_metrics_and_output_come_back(self, history: RunHistory) -> None:
        add(history, "run")
        plan = Plan("ps", Program("def train(ps): pass"))
        (history.directory("run") / "plan.json").write_text(plan.to_json())
        MetricStream("run", history.directory("run") / "metrics.jsonl").append([Metric("", 1, "loss", 0.5, 0, 0.0)])
        assert history.plan("run") == plan
        assert history.metrics("run").last("loss") == 0.5
        assert read_output(history.directory("run"), "stdout") == ""

    def test_output_is_in_order_of_ranks_each_line_labelled(self, tmp_path: Path) -> None:
        entry = '{"kind": "stdout", "source": "worker", "rank": %d, "text": "%s", "time": 0}\n'
        (tmp_path / "output.jsonl").write_text(
            entry % (10, "ten\\n") + entry % (2, "tw") + entry % (10, "more") + entry % (2, "o\\n")
        )
        assert read_output(tmp_path, "stdout") == "[worker 2] two\n[worker 10] ten\n[worker 10] more\n"
        assert read_output(tmp_path, "stderr") == ""

    def test_an_output_cut_short_by_a_crash_is_shown_up_to_there(self, tmp_path: Path) -> None:
        entry = '{"kind": "stdout", "source": "worker", "rank": 0, "text": "said\\n", "time": 0}\n'
        (tmp_path / "output.jsonl").write_text(entry + entry[:30])
        assert read_output(tmp_path, "stdout") == "[worker 0] said\n"
