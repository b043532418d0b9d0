"""``--detach``: a run that outlives its kernel, found, stopped and fetched from a new one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from conftest import Notebook

TRAIN = """
import time
def train(ps):
    w = ps.table("w", shape=3, optimizer=pai.SGD(lr=-1.0))
    for clock in ps.clocks({clocks}):
        w.push(step)
        pai.log(step=clock, loss=1 / (clock + 1))
        time.sleep(0.05)
    return ps.rank
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_run_goes_on_when_its_kernel_is_killed(fresh_notebook: Callable[..., Notebook], tmp_path: Path) -> None:
    first = fresh_notebook()
    first.run("step = [1.0, 0, 0]")
    begun = first.run("%%pai_ps -n 2 --detach --push step -o trained" + TRAIN.format(clocks=60))
    assert begun.status == "ok", begun.traceback
    assert begun.stdout.startswith("push step: list")
    assert "<DetachedRun" in begun.text
    run_id = first.value("_.id").strip("'")
    endless = first.run("%%pai_allreduce -n 1 --detach\nimport time\nprint('in')\nwhile True: time.sleep(0.05)")
    assert "<DetachedRun" in endless.text
    endless_id = first.value("_.id").strip("'")
    hosts = [psutil.Process(int(first.value(f"{name}.record.pid"))) for name in ("_", "__")]
    os.kill(first.pid, signal.SIGKILL)
    first.manager.provisioner.process.wait()  # type: ignore[union-attr]

    second = fresh_notebook()
    assert "running" in second.run("%pai_runs").text
    stopped = second.run(f"%pai_runs stop {endless_id}")
    assert stopped.stdout.rstrip().endswith(": cancelled"), stopped.traceback
    fetched = second.run(f"%pai_runs result {run_id}")
    assert fetched.status == "ok", fetched.traceback
    assert "trained: the trained tables" in fetched.stdout
    assert second.value("(trained.clock, trained.returned, trained.tables['w'].tolist())") == (
        "(60, (0, 1), [120.0, 0.0, 0.0])"
    )
    assert second.run(f"%pai_runs stop {run_id}").evalue.endswith("has ended already: done")
    _gone, alive = psutil.wait_procs(hosts, timeout=30)
    assert alive == []
