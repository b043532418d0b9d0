"""Parameter-server cells in a real kernel: the picture that stays, and a run that goes on in a new kernel."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LINE = '%%pai_ps -n 2 --servers 1 --checkpoint {folder} --checkpoint-every 5 --until "epoch >= 40" -o run'
CELL = """
import time
def train(ps):
    w = ps.table("w", shape=3, optimizer=pai.SGD(lr=-1.0))
    clocks = []
    for clock in ps.clocks():
        w.push([1.0, 0, 0])
        clocks.append(clock)
        time.sleep(0.08)
    return clocks
"""


def test_a_run_is_resumed_from_its_checkpoint_in_a_new_kernel(
    fresh_notebook: Callable[..., Notebook], tmp_path: Path
) -> None:
    first = fresh_notebook()
    first.client.execute(LINE.format(folder=tmp_path) + CELL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "manifest.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.manager.provisioner.process.wait()  # type: ignore[union-attr]
    second = fresh_notebook()
    run_id = second.value("[r.id for r in get_ipython().paibook.session.history][0]").strip("'")
    outcome = second.run(f"%pai_runs resume {run_id}")
    assert outcome.status == "ok", outcome.traceback
    assert "training goes on from the checkpoint of clock" in outcome.stderr
    begun = int(second.value("run.returned[0][0]"))
    assert begun >= 5
    assert second.value("run.returned[0] == list(range(run.returned[0][0], 40))") == "True"
    assert float(second.value("float(run.tables['w'][0])")) == 80
    assert second.run(f"%pai_runs resume {run_id}").ename == "PlanError"
    shown = second.run(f"%pai_runs show {run_id}").stdout
    assert "2 workers, 1 server" in shown
    assert "worker 1  clock 40" in shown
