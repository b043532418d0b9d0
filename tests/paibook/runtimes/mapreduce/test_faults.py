"""Workers that die at the wrong record, or stop, and notebooks that end: on real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paibook.errors import UserCodeError
from paibook.history import RunHistory
from paibook.session import Session

pytestmark = pytest.mark.slow

POISON = """
import os, signal
def map(record):
    if record == 77:
        os.kill(os.getpid(), signal.SIGKILL)
    yield record % 10, 1
def reduce(key, values):
    yield key, sum(values)
"""


def appeared(path: Path, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.exists()


def test_a_record_that_kills_its_worker_is_named(on_cluster: Any) -> None:
    with pytest.raises(UserCodeError, match=r"items, item 77: .*this record ended its worker's process each time"):
        on_cluster.over(POISON, range(100))


def test_a_record_that_kills_its_worker_is_skipped_on_request(on_cluster: Any) -> None:
    found = on_cluster.over(POISON, range(100), max_bad=1)
    assert dict(found) == {key: 10 - (key == 7) for key in range(10)}
    (line,) = (on_cluster.directory / "bad.jsonl").read_text().splitlines()
    assert json.loads(line)["record"] == "77"


def test_a_worker_that_stops_is_overtaken(on_cluster: Any, tmp_path: Path) -> None:
    source = """
    import os, signal
    def map(record):
        if record == 99:
            try:
                with open(marker, "x") as file:
                    file.write(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGSTOP)
            except FileExistsError:
                pass
        yield record % 10, 1
    def reduce(key, values):
        yield key, sum(values)
    """
    marker = tmp_path / "pid"
    try:
        found = on_cluster.over(source, range(100), variables={"marker": str(marker)}, push=("marker",))
    finally:
        assert appeared(marker)
        os.kill(int(marker.read_text()), signal.SIGCONT)
    assert dict(found) == dict.fromkeys(range(10), 10)
    assert run_backups(on_cluster) >= 1


def run_backups(run: Any) -> int:
    return sum(stage["backups"] for stage in run.summary["stages"])


NOTEBOOK = """
import os, sys, textwrap
from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.program import Program
from paibook.session import Session
from pathlib import Path

root, marker, out = sys.argv[1:]
source = '''
import os, time
def map(record):
    yield record % 10, 1
def combine(key, values):
    yield key, sum(values)
def reduce(key, values):
    if key == 5 and not os.path.exists(marker + ".resumed"):
        open(marker, "w").close()
        time.sleep(600)
    with open(marker + ".seen", "a") as file:
        file.write(f"{key}\\\\n")
    yield {"key": key, "n": sum(values)}
'''
if __name__ == "__main__":
    session = Session(history=RunHistory(Path(root)))
    options = {"inputs": [{"variable": "items"}], "out": out, "out_kind": "path", "reducers": 10}
    plan = Plan("mapreduce", Program(source, "cell"), options=options, push=("marker",))
    session.run(plan, {"items": list(range(1000)), "marker": marker}).result()
"""


def test_a_run_goes_on_after_its_notebook_died(tmp_path: Path) -> None:
    script, marker, out = tmp_path / "notebook.py", tmp_path / "marker", tmp_path / "out.parquet"
    script.write_text(NOTEBOOK)
    root = tmp_path / "runs"
    environment = {**os.environ, "PAIBOOK_WORKERS": "2"}
    notebook = subprocess.Popen([sys.executable, str(script), str(root), str(marker), str(out)], env=environment)
    try:
        assert appeared(marker, 90)
        time.sleep(1)  # the other worker finishes what it has
    finally:
        notebook.kill()
        notebook.wait()
    Path(f"{marker}.resumed").touch()
    (record,) = RunHistory(root)
    assert record.state == "failed"
    assert not out.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAIBOOK_WORKERS", "2")
        session = Session(history=RunHistory(root))
    # As if it had been detached; whoever goes on with it has it.
    replace(record, detached=True).save(RunHistory(root).directory(record.id))
    (RunHistory(root).directory(record.id) / "outcome.pkl").touch()
    try:
        result = session.resume(record.id).result(90)
    finally:
        session.close()
    assert not RunHistory(root).find(record.id).detached
    assert not (RunHistory(root).directory(record.id) / "outcome.pkl").exists()
    frame = result.read()
    assert dict(zip(frame["key"], frame["n"], strict=True)) == dict.fromkeys(range(10), 100)
    assert len(frame) == 10
    done = Counter(Path(f"{marker}.seen").read_text().split())
    assert set(done) == set(map(str, range(10)))
    assert done.total() <= 11  # what had finished was not done again, but for one that was at it
    assert sorted(p.name for p in tmp_path.glob("*out*")) == ["out.parquet"]
    assert not (RunHistory(root).directory(record.id) / "work").exists()
    assert RunHistory(root).find(record.id).state == "done"


@pytest.mark.parametrize("stage", ["map", "reduce"])
def test_all_workers_are_killed_now_and_then(on_cluster: Any, stage: str) -> None:
    source = """
    import time
    def map(record):
        time.sleep(0.005 * (stage == "map"))
        yield record % 50, 1
    def reduce(key, values):
        time.sleep(0.05 * (stage == "reduce"))
        yield key, sum(values)
    """
    client = on_cluster.cluster._started()
    over = threading.Event()

    def kill_all() -> None:
        for _ in range(2):
            if over.wait(1.0):
                return
            for nanny in list(client.cluster.workers.values()):
                if nanny.pid:
                    os.kill(nanny.pid, signal.SIGKILL)
            over.wait(3.0)

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        found = on_cluster.over(source, range(1000), variables={"stage": stage}, push=("stage",))
    finally:
        over.set()
        killer.join()
    assert dict(found) == dict.fromkeys(range(50), 20)
