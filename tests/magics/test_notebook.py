"""The cells in a real kernel on the embedded cluster: what a user sees, and what happens when things go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from conftest import Notebook, Outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
WORD_COUNT = """
def map(line):
    for word in line.split():
        yield word, 1

def reduce(word, ones):
    yield word, sum(ones)
"""


class TestCells:
    def test_the_first_cell_starts_the_cluster_and_says_so(self, fresh_notebook: Callable[..., Notebook]) -> None:
        outcome = fresh_notebook().run("%%pai_allreduce -n 2\nrank")
        assert outcome.status == "ok"
        assert "started the embedded cluster" in outcome.stdout
        assert outcome.stdout.endswith("[rank 0] 0\n[rank 1] 1\n")

    def test_mapreduce_binds_its_result(self, notebook: Notebook) -> None:
        notebook.run("lines = ['to be or', 'not to be'] * 10")
        outcome = notebook.run("%%pai_mapreduce -i lines -o counts" + WORD_COUNT)
        assert outcome.status == "ok"
        assert notebook.value("sorted(counts)") == "[('be', 20), ('not', 10), ('or', 10), ('to', 20)]"
        assert "counts: 4 records" in outcome.stdout

    def test_allreduce_prints_with_ranks_and_merges_equal_values(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_allreduce -n 2\nprint('I am', rank)\ncomm.allreduce(rank + 1)")
        lines = outcome.stdout.splitlines()
        assert sorted(lines[:2]) == ["[rank 0] I am 0", "[rank 1] I am 1"]
        assert lines[-1] == "[ranks 0-1] 3"

    def test_ranks_keep_their_variables_between_cells(self, notebook: Notebook) -> None:
        notebook.run("%%pai_allreduce -n 2\nkept = rank * 10")
        assert notebook.run("%%pai_allreduce -n 2\nkept").stdout.splitlines() == ["[rank 0] 0", "[rank 1] 10"]

    def test_push_and_pull_name_what_travels(self, notebook: Notebook) -> None:
        notebook.run("import numpy as np; x = np.arange(6.0).reshape(2, 3)")
        outcome = notebook.run("%%pai_allreduce -n 2 --push x --pull y\ny = x.sum() + rank")
        assert "push x: float64[2, 3]," in outcome.stdout
        assert "pull y: float64" in outcome.stdout
        assert "y differs between ranks" in outcome.stdout
        assert notebook.value("float(y)") == "15.0"

    def test_targets_choose_ranks(self, notebook: Notebook) -> None:
        assert notebook.run("%%pai_allreduce -n 2 -t 1\nrank").stdout == "[rank 1] 1\n"

    def test_local_runs_the_cell_here_too(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_allreduce -n 2 --local\nhere = 1 + 1")
        assert outcome.status == "ok"
        assert notebook.value("here") == "2"

    def test_group_outputs_sorts_by_rank(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_allreduce -n 2 --group-outputs\nfor i in range(3): print(i)")
        assert outcome.stdout.splitlines() == [f"[rank {r}] {i}" for r in range(2) for i in range(3)]

    def test_hyperparameters_are_hp(self, notebook: Notebook) -> None:
        assert notebook.run("%%pai_allreduce -n 2 --hp lr=0.5 name=adam\nhp.lr, hp.name").stdout == (
            "[ranks 0-1] (0.5, 'adam')\n"
        )

    def test_the_parameter_server_stops_at_its_condition(self, notebook: Notebook) -> None:
        outcome = notebook.run(
            """%%pai_ps -n 2 --servers 2 --until "epoch >= 5" -o trained
def train(ps):
    w = ps.table("w", shape=(4,), optimizer=pai.SGD(lr=0.1))
    for epoch in ps.clocks():
        w.push(w.pull() - 1)
        pai.log(step=epoch, loss=1 / (epoch + 1))
"""
        )
        assert outcome.status == "ok"
        assert notebook.value("trained.clock") == "5"
        assert any("image/svg+xml" in display for display in outcome.displays)

    def test_dry_run_shows_the_plan_and_runs_nothing(self, notebook: Notebook) -> None:
        before = notebook.value("len(get_ipython().paibook.session.runs)")
        outcome = notebook.run("%%pai_mapreduce -i lines --dry-run" + WORD_COUNT)
        assert "mermaid" in outcome.displays[0]["text/markdown"]
        assert outcome.displays[0]["application/vnd.paibook.plan+json"]["runtime"] == "mapreduce"
        assert notebook.value("len(get_ipython().paibook.session.runs)") == before

    def test_noblock_returns_a_run_that_can_be_awaited(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_allreduce -n 2 --noblock\nimport time; time.sleep(1); rank")
        assert outcome.seconds < 1
        assert "running" in outcome.text
        assert notebook.run("run = get_ipython().paibook.session.runs[-1]\nresult = await run").status == "ok"
        assert notebook.value("(run.state, dict(result.values))") == "('done', {0: 0, 1: 1})"

    def test_rich_results_keep_their_richness(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_allreduce -n 2\nimport pandas as pd\npd.DataFrame({'rank': [rank]})")
        # A panel shows too where importing pandas takes long.
        assert sum("dataframe" in display.get("text/html", "") for display in outcome.displays) == 2

    def test_runs_are_listed(self, notebook: Notebook) -> None:
        notebook.run("%%pai_allreduce -n 2 --name listed\npai.log(step=1, loss=2.0)")
        outcome = notebook.run("%pai_runs")
        assert "listed" in outcome.text
        assert notebook.run("%pai_runs show {get_ipython().paibook.session.runs[-1].id}").status == "ok"

    def test_help_is_the_grammar(self, notebook: Notebook) -> None:
        reply = notebook.client.execute("%%pai_ps?", reply=True, timeout=30)
        (payload,) = reply["content"]["payload"]
        assert "--consistency" in payload["data"]["text/plain"]
        assert "def train(ps):" in payload["data"]["text/plain"]

    def test_a_cell_inside_another_magic_runs_too(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%time\n%%pai_allreduce -n 2\nrank")
        assert "[rank 1] 1" in outcome.stdout
        assert "Wall time" in outcome.stdout

    def test_noblock_keeps_its_result_when_it_ends(self, notebook: Notebook) -> None:
        notebook.run("%%pai_allreduce -n 2 -a -o later --pull z\nz = 5\nrank")
        notebook.run("import asyncio\nwhile 'later' not in globals(): await asyncio.sleep(0.05)")
        assert notebook.value("(later, z)") == "([0, 1], 5)"

    def test_python_values_expand_in_the_line(self, notebook: Notebook) -> None:
        notebook.run("count = 2")
        assert notebook.run("%%pai_allreduce -n {count}\nworld_size").stdout == "[ranks 0-1] 2\n"

    def test_giving_up_on_a_run_does_not_end_it(self, notebook: Notebook) -> None:
        notebook.run("import asyncio")
        notebook.run("%%pai_allreduce -n 2 -a\nimport time; time.sleep(1); rank")
        outcome = notebook.run("run = get_ipython().paibook.session.runs[-1]\nawait asyncio.wait_for(run, 0.1)")
        assert outcome.ename == "TimeoutError"
        assert notebook.value("dict(run.result(30).values)") == "{0: 0, 1: 1}"

    def test_cells_run_without_autoawait(self, notebook: Notebook) -> None:
        notebook.run("%autoawait off")
        assert notebook.run("%%pai_allreduce -n 2\nrank").stdout == "[rank 0] 0\n[rank 1] 1\n"
        notebook.run("%autoawait asyncio")

    def test_the_extension_can_be_unloaded_and_loaded_again(self, fresh_notebook: Callable[..., Notebook]) -> None:
        notebook = fresh_notebook(PAIBOOK_CLUSTER="inline")
        assert notebook.run("%unload_ext paibook").status == "ok"
        assert notebook.run("%load_ext paibook").status == "ok"
        assert notebook.run("%%pai_allreduce -n 1\nrank").stdout == "[rank 0] 0\n"

    def test_plain_ipython_runs_the_cells_too(self, tmp_path: Path) -> None:
        code = "get_ipython().run_cell('%load_ext paibook')\nget_ipython().run_cell('%%pai_allreduce -n 2\\nrank + 40')"
        roots = os.pathsep.join(str(ROOT / root) for root in (".", "magics"))
        done = subprocess.run(
            [sys.executable, "-m", "IPython", "--no-banner", "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": roots, "PAIBOOK_CLUSTER": "inline", "IPYTHONDIR": str(tmp_path)},
        )
        assert "[rank 0] 40\n[rank 1] 41\n" in done.stdout


class TestErrors:
    def test_an_error_shows_the_cells_own_line_and_the_guilty_rank(self, notebook: Notebook) -> None:
        outcome = notebook.run(
            "%%pai_allreduce -n 2\nimport time\nif rank == 1:\n    raise ValueError('boom')\ncomm.barrier()\n"
        )
        assert (outcome.status, outcome.ename) == ("error", "UserCodeError")
        assert outcome.evalue == "rank 1: ValueError: boom"
        assert "line 4, in <module>\n    raise ValueError('boom')" in outcome.traceback
        assert "paibook/" not in outcome.traceback
        assert notebook.run("%%pai_allreduce -n 2\ncomm.allreduce(1)").stdout.endswith("[ranks 0-1] 2\n")

    def test_a_missing_function_is_named_before_anything_runs(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_mapreduce -i lines\ndef map(line): yield line, 1")
        assert outcome.ename == "ProgramError"
        assert "needs a function named 'reduce'" in outcome.evalue
        assert "the cell defines: map" in outcome.evalue

    def test_a_wrong_signature_is_shown_with_its_line(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_mapreduce -i lines\ndef map(): yield 1, 1\ndef reduce(k, v): yield k")
        assert outcome.ename == "ProgramError"
        assert "map(record)" in outcome.evalue
        assert "line 2" in outcome.evalue

    def test_a_syntax_error_is_shown_as_ipython_shows_it(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_ps -n 2\n\ndef train(ps):\n    x = = 1\n")
        assert outcome.ename == "SyntaxError"
        assert "line 4" in outcome.evalue
        assert "paibook" not in outcome.traceback

    @pytest.mark.parametrize("statement", ["raise KeyboardInterrupt", "import sys; sys.exit(1)"])
    def test_no_exception_of_a_background_run_ends_the_kernel(self, notebook: Notebook, statement: str) -> None:
        notebook.run("import asyncio")
        notebook.run(f"%%pai_ps -a -n 1\ndef train(ps):\n    {statement}")
        notebook.run("run = get_ipython().paibook.session.runs[-1]\nwhile not run.done(): await asyncio.sleep(0.05)")
        assert notebook.value("1 + 1") == "2"
        assert notebook.run("%%pai_allreduce -n 2\nrank").status == "ok"

    def test_what_only_compiling_finds_is_refused_with_its_line(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_allreduce -n 2\nx = 1\nreturn x")
        assert outcome.ename == "ProgramError"
        assert "line 3" in outcome.evalue
        assert "'return' outside function" in outcome.evalue

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("-n 0", ["-n", "at least 1"]),
            ("-n x", ["-n", "whole number", "'x'"]),
            ("--worker 2", ["--worker", "did you mean --workers?"]),
            ("--push nothing_here", ["nothing_here", "no variable"]),
            ("-t 5 -n 2", ["no rank 5", "0 to 1"]),
            ("-n 1000", ["1000 asked for", "free"]),
            ("-g 64 -n 2", ["GPU", "-g"]),
        ],
    )
    def test_bad_options_say_what_was_expected(self, notebook: Notebook, line: str, words: list[str]) -> None:
        outcome = notebook.run(f"%%pai_allreduce {line}\n1")
        assert outcome.status == "error"
        for word in words:
            assert word in outcome.evalue

    def test_an_unpicklable_push_is_named(self, notebook: Notebook) -> None:
        notebook.run("import threading; lock = threading.Lock()")
        outcome = notebook.run("%%pai_allreduce -n 2 --push lock\n1")
        assert outcome.ename == "PlanError"
        assert "--push lock" in outcome.evalue

    def test_an_input_that_matches_nothing_is_named(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_mapreduce -i no/such/*.txt" + WORD_COUNT)
        assert outcome.ename == "DataError"
        assert "no/such/*.txt" in outcome.evalue

    def test_a_rank_that_exits_is_reported_and_replaced(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_allreduce -n 2\nimport os\nif rank == 1: os._exit(3)\ncomm.barrier()")
        assert outcome.ename == "RankLost"
        assert "exited with code 3" in outcome.evalue
        assert notebook.run("%%pai_allreduce -n 2\ncomm.allreduce(1)").stdout.endswith("[ranks 0-1] 2\n")

    def test_megabytes_of_output_are_cut_on_screen_and_whole_in_the_log(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_allreduce -n 2\nfor i in range(30_000): print('x' * 60)")
        assert outcome.status == "ok"
        assert 900_000 < len(outcome.stdout) < 1_100_000
        assert "is not shown here" in outcome.stdout
        assert notebook.value("get_ipython().paibook.session.runs[-1].stdout.count('x' * 60)") == "60000"

    def test_a_timeout_stops_the_cell(self, notebook: Notebook) -> None:
        outcome = notebook.run("%%pai_allreduce -n 2 --timeout 1\nimport time; time.sleep(60)")
        assert outcome.ename == "RunError"
        assert "1 s" in outcome.evalue

    def test_a_cluster_that_is_not_there_says_where_it_looked(self, notebook: Notebook) -> None:
        outcome = notebook.run("%pai_cluster attach tcp://127.0.0.1:9")
        assert outcome.ename == "ClusterError"
        assert "tcp://127.0.0.1:9" in outcome.evalue
        assert notebook.run("%%pai_allreduce -n 2\nrank").status == "ok"


class TestStop:
    @pytest.mark.parametrize(
        "body",
        ["import time\nprint('in')\ntime.sleep(60)", "print('in')\nif rank == 0: comm.barrier()\nwhile True: pass"],
    )
    def test_stop_frees_the_ranks_and_keeps_their_variables(self, notebook: Notebook, body: str) -> None:
        notebook.run("%%pai_allreduce -n 2\nvalue = 7\ncomm.barrier()")
        stopped: list[float] = []

        def stop_when_both_are_in(outcome: Outcome) -> None:
            if outcome.stdout.count("in\n") == 2 and not stopped:
                stopped.append(time.monotonic())
                notebook.manager.interrupt_kernel()

        outcome = notebook.run("%%pai_allreduce -n 2\n" + body, stop_when_both_are_in)
        assert (outcome.status, outcome.ename) == ("error", "KeyboardInterrupt")
        assert time.monotonic() - stopped[0] < 20
        assert notebook.run("%%pai_allreduce -n 2\nvalue").stdout == "[ranks 0-1] 7\n"
        assert notebook.run("%%pai_allreduce -n 2\ncomm.allreduce(rank)").stdout == "[ranks 0-1] 1\n"

    def test_stop_ends_a_mapreduce(self, notebook: Notebook) -> None:
        notebook.run("lines = ['a b'] * 1000")
        timer = threading.Timer(2, notebook.manager.interrupt_kernel)
        timer.start()
        outcome = notebook.run(
            "%%pai_mapreduce -i lines\nimport time\ndef map(x):\n    time.sleep(1)\n    yield x, 1\n"
            "def reduce(k, v): yield k"
        )
        assert outcome.ename == "KeyboardInterrupt"
        assert notebook.run("%%pai_mapreduce -i lines -o n" + WORD_COUNT).status == "ok"

    def test_queued_cells_are_aborted(self, notebook: Notebook) -> None:
        started = threading.Event()
        later: list[str] = []

        def interrupt(outcome: Outcome) -> None:
            if "in\n" in outcome.stdout and not started.is_set():
                started.set()
                later.append(notebook.client.execute("never = 1"))
                notebook.manager.interrupt_kernel()

        notebook.run("%%pai_allreduce -n 2\nimport time\nprint('in')\ntime.sleep(60)", interrupt)
        reply: dict[str, Any] = {}
        while reply.get("parent_header", {}).get("msg_id") != later[0]:
            reply = notebook.client.get_shell_msg(timeout=30)
        assert reply["content"]["status"] == "aborted"
        assert notebook.value("'never' in globals()") == "False"


class TestWidgetsStayAlive:
    def test_a_front_end_message_is_handled_while_a_cell_runs(self, notebook: Notebook) -> None:
        notebook.run(
            "import time\nseen = []\nmanager = get_ipython().kernel.comm_manager\n"
            "manager.register_target('probe', lambda comm, message: seen.append(time.time()))"
        )
        sent: list[bool] = []

        def poke(outcome: Outcome) -> None:
            if "in\n" in outcome.stdout and not sent:
                sent.append(True)
                message = notebook.client.session.msg("comm_open", {"comm_id": "1", "target_name": "probe", "data": {}})
                notebook.client.shell_channel.send(message)

        notebook.run("%%pai_allreduce -n 2\nimport time\nprint('in', flush=True)\ntime.sleep(2)", poke)
        # Handled while the cell ran, not queued behind it.
        assert notebook.value("seen[0] < get_ipython().paibook.session.runs[-1].record.ended - 1") == "True"


class TestProcesses:
    def test_killing_the_kernel_leaves_no_process_and_no_file(
        self, fresh_notebook: Callable[..., Notebook], tmp_path: Path
    ) -> None:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        notebook = fresh_notebook(TMPDIR=str(scratch))
        notebook.run("%%pai_allreduce -n 2\nimport subprocess\nchild = subprocess.Popen(['sleep', '300'])")
        notebook.run("%%pai_ps -n 1 --servers 1 --until 'epoch >= 1'\ndef train(ps):\n    for e in ps.clocks(): pass")
        family = psutil.Process(notebook.pid).children(recursive=True)
        assert len(family) >= 6  # a controller, two workers, three ranks, and what they started
        notebook.client.execute("%%pai_allreduce -n 2\nimport time; time.sleep(300)")
        os.kill(notebook.pid, signal.SIGKILL)
        _gone, alive = psutil.wait_procs(family, timeout=10)
        assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
        assert list(scratch.glob("paibook-*")) == []

    def test_two_notebooks_share_a_cluster(self, fresh_notebook: Callable[..., Notebook], tmp_path: Path) -> None:
        from distributed import LocalCluster

        with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None, host="127.0.0.1") as cluster:
            first, second = fresh_notebook(), fresh_notebook()
            for notebook in (first, second):
                assert "room for 4 ranks" in notebook.run(f"%pai_cluster attach {cluster.scheduler_address}").stdout
            first.run("%%pai_allreduce -n 2\nmine = 'first'")
            second.run("%%pai_allreduce -n 2\nmine = 'second'")
            assert first.run("%%pai_allreduce -n 2\nmine").stdout == "[ranks 0-1] 'first'\n"
            refused = first.run("%%pai_allreduce -n 3\nmine")
            assert refused.ename == "ClusterError"
            assert "3 asked for" in refused.evalue
            assert "0 free" in refused.evalue
            second.run("%pai_cluster stop")
            assert first.run("%%pai_allreduce -n 3\ncomm.allreduce(1)").status == "ok"

    def test_a_headless_notebook_fails_where_its_cell_does(self, tmp_path: Path) -> None:
        import nbformat
        import papermill
        from nbformat.v4 import new_code_cell, new_notebook

        path = tmp_path / "failing.ipynb"
        cells = ["%load_ext paibook", "%%pai_allreduce -n 2\nif rank: 1 / 0", "print('never')"]
        nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
        with pytest.raises(papermill.PapermillExecutionError, match="ZeroDivisionError"):
            papermill.execute_notebook(path, tmp_path / "out.ipynb", kernel_name="python3", progress_bar=False)
        saved = nbformat.read(tmp_path / "out.ipynb", as_version=4)
        assert not any("never" in str(cell.get("outputs")) for cell in saved.cells)
