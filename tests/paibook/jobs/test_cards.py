"""Cards of a job: held while its kernel lives, waited for, refused, done without. A fake NVML library is loaded."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from paibook.errors import NoGPU, PlanError
from paibook.gpus import Holder, LeaseBook, discover
from paibook.jobs import Job, actions
from paibook.jobs.attempt import Attempt
from paibook.jobs.cards import held_cards, needed
from paibook.jobs.cli_options import add_job_options, job_from
from paibook.jobs.runner import spawn
from paibook.jobs.scheduler import drain
from paibook.jobs.store import JobStore
from paibook.resources import Resources
from paibook.settings import settings

FAKE_NVML = Path(__file__).parents[2] / "fake_nvml"
JOB = Job("fit", "fit.ipynb", cluster="inline", resources=Resources(gpus_per_worker=1))


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """``cards(n)``: so many are here from now on, for this process and its children."""
    file = tmp_path / "cards.json"
    monkeypatch.setenv("FAKE_NVML", str(file))
    monkeypatch.setenv("PAIBOOK_LEASES", str(tmp_path / "leases"))
    monkeypatch.syspath_prepend(str(FAKE_NVML))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKE_NVML), *filter(None, [os.environ.get("PYTHONPATH")])]))
    modules = ("pynvml", "paibook.gpus.nvml")
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("paibook.gpus.nvml", raising=False)
    settings.cache_clear()
    yield lambda count: file.write_text(json.dumps([{"uuid": f"GPU-{index}"} for index in range(count)]))
    settings.cache_clear()
    for name in modules:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("asked", "count_and_share"),
    [
        (Resources(0, gpus_per_worker=1), (1, 100)),
        (Resources(3, gpus_per_worker=2), (6, 100)),
        (Resources(4, gpus_per_worker=1, gpu_share=50), (2, 100)),
        (Resources(3, gpus_per_worker=1, gpu_share=30), (1, 90)),
        (Resources(3, gpus_per_worker=1, gpu_share=60), (3, 60)),
        (Resources(2, gpus_per_worker=1, cards=("1", "1"), gpu_share=50), (1, 100)),
        (Resources(2, gpus_per_worker=1, cards=("1", "3")), (2, 100)),
    ],
)
def test_how_many_cards_are_needed(asked, count_and_share) -> None:
    assert needed(replace(JOB, resources=asked)) == count_and_share


async def test_what_cannot_be_had_is_refused_at_once(cards) -> None:
    async def take(**asked):
        async with held_cards(replace(JOB, resources=Resources(**asked)), print) as held:
            return held

    cards(0)
    with pytest.raises(NoGPU, match=r"job 'fit' asks for 2 GPUs: no GPU here.* with --cpu-fallback it runs on the CPU"):
        await take(workers=2, gpus_per_worker=1)
    assert (await take(gpus_per_worker=1, cpu_fallback=True)).environment == {}
    cards(2)
    with pytest.raises(PlanError, match="3 GPUs asked for, and this machine has fewer"):
        await take(workers=3, gpus_per_worker=1)
    with pytest.raises(PlanError, match="asks for GPU 7; there are 0, 1"):
        await take(workers=1, gpus_per_worker=1, cards=("7",))
    named = await take(workers=1, gpus_per_worker=1, cards=("1",))
    assert named.environment["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert LeaseBook().held() == []


async def test_a_cluster_elsewhere_has_cards_of_its_own(cards) -> None:
    cards(0)
    async with held_cards(replace(JOB, cluster="tcp://host:8786"), print) as held:
        assert held.environment == {}


async def test_a_timeout_says_what_was_waited_for(cards, tmp_path, notebook_of) -> None:
    cards(1)
    store = JobStore(tmp_path / "jobs")
    LeaseBook().take(discover(), Holder.of("kernel", "other.ipynb"))
    path = notebook_of(tmp_path / "fit.ipynb", "1")
    run = store.run(store.add_run(replace(JOB, notebook=str(path), timeout=0.2), "user"))
    heard = []
    listener = SimpleNamespace(waits=heard.append)
    ending = await Attempt(run, tmp_path, listener).carry_out()
    reason = "1 GPU asked for: GPU 0 (NVIDIA H200) is held by kernel other.ipynb"
    assert ending.state == "failed"
    assert f"it took longer than its timeout of 0.2 s; it waited: {reason}" in ending.error
    assert [text.startswith(reason) for text in heard] == [True]
    assert [lease.holder.name for lease in LeaseBook().held()] == ["other.ipynb"]


def test_the_options_of_a_command_line_change_a_specs(tmp_path, notebook_of) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_job_options(parser)
    path = notebook_of(tmp_path / "fit.ipynb", "1")
    spec = tmp_path / "spec.json"
    spec.write_text(replace(JOB, resources=Resources(4, gpus_per_worker=2, memory=2**30)).to_json())
    made = job_from(parser.parse_args(["--spec", str(spec), "--gpus", "1", "--cpu-fallback"]), str(path))
    assert made.resources == Resources(4, gpus_per_worker=1, memory=2**30, cpu_fallback=True)


SEEN = """\
import json, os
from paibook.gpus import LeaseBook
held = [(l.holder.kind, l.holder.name, l.holder.pid == os.getpid(), l.card, l.within == '') for l in LeaseBook().held()]
print(json.dumps([os.environ['CUDA_VISIBLE_DEVICES'], os.environ['PAIBOOK_WORKERS'], held]))"""
CELL = "%%pai_allreduce -n 2 -g 1\nprint('rank on its own card')"


@pytest.mark.slow
def test_a_jobs_cells_use_its_cards_and_its_end_frees_them(cards, tmp_path, notebook_of) -> None:
    cards(3)
    store = JobStore(tmp_path / "jobs")
    path = notebook_of(tmp_path / "fit.ipynb", SEEN, CELL)
    asked = Resources(workers=2, gpus_per_worker=1)
    [taken] = LeaseBook().take(discover()[:1], Holder.of("kernel", "other.ipynb"))
    [run_id] = actions.queue(store, replace(JOB, notebook=str(path), resources=asked))
    drain(store, [run_id])
    assert store.run(run_id).state == "done", store.run(run_id)
    said = actions.logs(store, run_id)
    first, *rest = said.splitlines()
    visible, workers, held = json.loads(first)
    assert (visible, workers) == ("GPU-1,GPU-2", "2")
    assert ["job", "fit", True, "GPU-1", True] in held
    assert "\n".join(rest).count("rank on its own card") == 2
    assert LeaseBook().held() == [taken]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_waits_for_a_card_that_another_holds_and_gets_it_when_that_is_killed(
    cards, tmp_path, notebook_of, wait_for
) -> None:
    cards(1)
    store = JobStore(tmp_path / "jobs")
    long = notebook_of(tmp_path / "long.ipynb", "import time\ntime.sleep(300)")
    short = notebook_of(tmp_path / "short.ipynb", "1")
    [first] = actions.queue(store, replace(JOB, name="long", notebook=str(long)))
    holder = spawn(store, first)
    wait_for(lambda: store.run(first).cell == 0)
    [second] = actions.queue(store, replace(JOB, name="short", notebook=str(short)))
    waiting = spawn(store, second)
    waits = wait_for(lambda: store.run(second).error)
    assert "1 GPU asked for: GPU 0 (NVIDIA H200) is held by job long (process " in waits
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    waiting.wait()
    assert (store.run(second).state, store.run(second).error) == ("done", "")
    assert LeaseBook().held() == []
