"""Detached runs in real host processes, on a Dask cluster that they are attached to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import LocalCluster

from paibook.detached.handle import DetachedRun
from paibook.errors import PaibookError, PlanError, RunCancelled, RunError, UserCodeError
from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WAIT = 90
ENDLESS = "print('in', flush=True)\nimport time\nwhile True: time.sleep(0.05)"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Dask cluster that others started, with room for three ranks."""
    options: dict[str, Any] = {"dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(n_workers=1, threads_per_worker=3, **options) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    opened = Session("inline", RunHistory(tmp_path_factory.mktemp("runs")))
    yield opened
    opened.close()


def plan(address: str, source: str, **fields: Any) -> Plan:
    return Plan("allreduce", Program(source, "Cell In[7]"), Resources(2), address, **fields)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Scale:
    """An object of the notebook's."""

    def __init__(self, factor: float) -> None:
        self.factor = factor


def test_a_run_gives_its_result_to_every_process(session: Session, address: str) -> None:
    source = "print('said', rank)\npai.log(step=1, loss=0.5)\nscaled = data * scale.factor + rank\nfloat(scaled.sum())"
    asked = plan(address, source, push=("data", "scale"), pull=("scaled",), name="mine")
    run = session.detach(asked, {"data": np.ones(3), "scale": Scale(2.0)})
    assert run.pushed.keys() == {"data", "scale"}
    assert run.record.pid not in (0, os.getpid())
    result = run.result(WAIT)
    assert dict(result.values) == {0: 6.0, 1: 9.0}
    assert result.pulled["scaled"].tolist() == [2, 2, 2]
    assert (run.state, run.record.detached, run.plan.detach) == ("done", True, True)
    assert run.stdout == "[worker 0] said 0\n[worker 1] said 1\n"
    assert run.metrics.last("loss") == 0.5
    until(lambda: not session.history.is_carried_out(run.id))
    # How far it is, where it takes longer than half a second.
    assert sorted(path.name for path in run.directory.iterdir() if path.name != "progress.json") == [
        "host.log",
        "metrics.jsonl",
        "outcome.pkl",
        "output.jsonl",
        "plan.json",
        "run.json",
    ]
    code = f"import paibook as pai, sys; run = pai.DetachedRun({run.id[-4:]!r}); sys.exit(run.result().values[1] != 9)"
    environment = {**os.environ, "PAIBOOK_RUNS": str(session.history.root)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_an_error_of_the_cells_is_the_runs(session: Session, address: str) -> None:
    run = session.detach(plan(address, "if rank == 1:\n    raise ValueError('no')"))
    with pytest.raises(UserCodeError, match="rank 1: ValueError: no") as caught:
        run.result(WAIT)
    assert "Cell In[7]" in caught.value.traceback
    assert (run.wait(0), run.record.error) == ("failed", "rank 1: ValueError: no")


def test_it_is_stopped_from_any_process(session: Session, address: str) -> None:
    run = session.detach(plan(address, ENDLESS))
    until(lambda: "in" in run.stdout)
    ended = threading.Event()
    run.add_done_callback(lambda _run: ended.set())
    with pytest.raises(TimeoutError, match="is still running after 0"):
        run.wait(0)
    DetachedRun(run.id, session.history).cancel()
    assert isinstance(run.exception(WAIT), RunCancelled)
    assert run.state == "cancelled"
    assert ended.wait(WAIT)
    run.cancel()  # of what has ended: nothing to do


def test_it_ends_after_its_timeout(session: Session, address: str) -> None:
    run = session.detach(plan(address, ENDLESS, timeout=0.5))
    with pytest.raises(RunError, match=r"timeout of 0\.5 s"):
        run.result(WAIT)


def test_a_host_that_is_killed_leaves_no_process_and_says_so(session: Session) -> None:
    run = session.detach(plan("embedded", ENDLESS))
    until(lambda: "in" in run.stdout)
    host = psutil.Process(run.record.pid)
    family = [host, *host.children(recursive=True)]
    assert len(family) >= 5  # a controller, workers, two ranks
    os.kill(host.pid, signal.SIGKILL)
    with pytest.raises(RunError, match=f"run {run.id}: its host process ended before the run did"):
        run.result(WAIT)
    assert run.state == "failed"
    _gone, alive = psutil.wait_procs(family, timeout=10)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


class TestRefusals:
    """Nothing is started, and nothing is left in the history."""

    @pytest.fixture
    def empty(self, tmp_path: Path) -> Iterator[Session]:
        opened = Session("inline", RunHistory(tmp_path / "runs"))
        yield opened
        opened.close()
        assert list(opened.history) == []
        assert not list(opened.history.root.glob("*"))

    def test_a_cluster_that_ends_with_the_notebook(self, empty: Session, address: str) -> None:
        from distributed import Client

        with pytest.raises(PlanError, match="the cluster inline is this notebook's own, and ends with it; name one"):
            empty.detach(plan("inline", "1"))
        with Client(address, set_as_default=False) as client:
            empty.attach(client)
            with pytest.raises(PlanError, match=f"the cluster {address} is this notebook's own"):
                empty.detach(plan(address, "1"))

    def test_an_input_that_cannot_be_sent(self, empty: Session, address: str) -> None:
        options = {"inputs": [{"variable": "lines"}], "format": None, "out": None, "out_kind": "none", "as": "list"}
        source = "def map(r): yield r, 1\ndef reduce(k, v): yield k"
        asked = Plan("mapreduce", Program(source), cluster=address, options=options)
        with pytest.raises(PlanError, match=r"the variable 'lines', a generator, cannot be sent to the process"):
            empty.detach(asked, {"lines": (line for line in "ab")})

    def test_a_variable_that_cannot_be_read_there(self, empty: Session, address: str) -> None:
        with pytest.raises(PlanError, match=r"the variable 'x' cannot be read in the process .*OSError: not here"):
            empty.detach(plan(address, "x", push=("x",)), {"x": Unreadable()})

    def test_a_run_that_was_not_detached_has_no_result_elsewhere(self, session: Session) -> None:
        run = session.run(plan("inline", "1"))
        run.result(WAIT)
        with pytest.raises(PaibookError, match="was not begun with --detach: its result is in the notebook"):
            DetachedRun(run.id, session.history)


class Unreadable:
    """Pickles, and raises where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_raise, ())


def _raise() -> None:
    raise OSError("not here")
