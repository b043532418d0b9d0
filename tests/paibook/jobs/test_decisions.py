"""Decisions that need no process: what is due, what is missed, where to go on."""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import replace

import psutil
import pytest

from paibook.jobs import Job
from paibook.jobs.checkpoint import names_in, restore, save
from paibook.jobs.claims import MOST_LOSSES, claim, requeue_lost
from paibook.jobs.resuming import Resumption, resumption
from paibook.jobs.scheduler import Scheduler, due_between, to_run
from paibook.jobs.store import JobStore

JOB = Job("a", "a.ipynb", cron="* * * * *", cluster="inline")
HOUR = 1_800_000_000 // 3600 * 3600


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path / "jobs")


@pytest.mark.parametrize(
    ("missed", "due", "runs"),
    [
        ("skip", [0, 60], []),
        ("once", [0, 60], [60]),
        ("catch-up", [0, 60], [0, 60]),
        ("skip", [0, 960], [960]),
        ("once", [0, 960], [960]),
        ("once", [], []),
    ],
)
def test_missed_fire_times(missed, due, runs) -> None:
    assert to_run(replace(JOB, missed=missed), due, now=1000) == runs


def test_fire_times_between() -> None:
    assert due_between(JOB, HOUR, HOUR + 120) == [HOUR + 60, HOUR + 120]
    once = Job("b", "b.ipynb", at="2030-01-01T03:00", timezone="Europe/Berlin")
    moment = 1893463200
    assert due_between(once, moment - 1, moment) == [moment]
    assert due_between(once, moment, moment + 1) == []


def test_a_clock_that_goes_back_makes_no_second_run(store, monkeypatch) -> None:
    monkeypatch.setattr("paibook.jobs.scheduler.spawn", lambda store, run_id: None)
    store.save(JOB)
    scheduler = Scheduler(store, most=0)
    with store.transaction() as db:
        db.execute("UPDATE pai_jobs SET scheduled_until = ?", (HOUR,))
    scheduler.tick(HOUR + 61)
    scheduler.tick(HOUR - 3600)
    scheduler.tick(HOUR + 62)
    assert [run.due for run in store.runs()].count(HOUR + 60) == 1
    assert len(store.runs()) == len({run.due for run in store.runs()})


def test_a_clock_that_goes_ahead_makes_the_latest_missed_run_and_loses_none(store, monkeypatch) -> None:
    monkeypatch.setattr("paibook.jobs.scheduler.spawn", lambda store, run_id: None)
    store.save(JOB)
    with store.transaction() as db:
        db.execute("UPDATE pai_jobs SET scheduled_until = ?", (HOUR,))
    running = store.add_run(replace(JOB, name="long"), "user")
    assert claim(store, running)
    now, week, created = time.time(), 7 * 24 * 3600, psutil.Process.create_time
    # The start of a process is reckoned from the clock, and moves with it.
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + week)
    monkeypatch.setattr(time, "time", lambda: now + week)
    assert requeue_lost(store) == []
    assert store.run(running).state == "running"
    scheduler = Scheduler(store, most=0)
    scheduler.tick(HOUR + week + 5)
    scheduler.tick(HOUR + week + 10)
    assert [run.due for run in store.runs("a")] == [HOUR + week]


def test_a_scheduler_goes_on_after_a_full_disk(store, monkeypatch, capsys) -> None:
    scheduler, looks = Scheduler(store), []

    def tick(now):
        looks.append(now)
        if len(looks) == 2:
            scheduler.stop()
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(scheduler, "tick", tick)
    monkeypatch.setattr("paibook.jobs.scheduler.TICK_SECONDS", 0)
    scheduler.serve()
    assert capsys.readouterr().err == "nothing was started: database or disk is full\n" * 2


def test_a_run_is_claimed_once_and_one_at_a_time(store) -> None:
    first, second = store.add_run(JOB, "user"), store.add_run(JOB, "user")
    assert claim(store, first)
    assert not claim(store, first)
    assert not claim(store, second)
    assert store.run(first).pid == os.getpid()
    assert requeue_lost(store) == []  # this process lives


def test_a_run_whose_process_is_gone_is_queued_again_but_not_for_ever(store) -> None:
    run_id = store.add_run(JOB, "user")
    for attempt in range(1, MOST_LOSSES):
        assert claim(store, run_id)
        store.update(run_id, born=1.0)  # another process has its number now
        assert requeue_lost(store) == [run_id]
        assert store.run(run_id).attempt == attempt + 1
    assert claim(store, run_id)
    store.update(run_id, born=1.0)
    assert requeue_lost(store) == []
    assert store.run(run_id).state == "failed"


def test_on_another_host_the_heartbeat_tells(store) -> None:
    run_id = store.add_run(JOB, "user")
    claim(store, run_id)
    store.update(run_id, host="elsewhere", heartbeat=time.time())
    assert requeue_lost(store) == []
    store.update(run_id, heartbeat=time.time() - 3600)
    assert requeue_lost(store) == [run_id]


def test_a_slot_gets_one_run(store) -> None:
    assert store.add_run(JOB, "schedule", slot="2026-01-01T00:00") is not None
    assert store.add_run(JOB, "schedule", slot="2026-01-01T00:00") is None


@pytest.mark.parametrize(
    ("sources", "finished", "saved", "expected"),
    [
        (["x = 1", "print(x)"], 0, None, Resumption(0)),
        (["x = 1", "print(x)"], 1, {"x"}, Resumption(1)),
        (["import os\ndef f(): pass", "x = f()", "f(x)"], 2, {"x"}, Resumption(2, (0,))),
        (["x = open('a')", "x.read()"], 1, set(), Resumption(0, why="these variables could not be kept: x")),
        (["x = open('a')", "y = 2", "y"], 2, {"y"}, Resumption(2)),
        (["x = 1", "x"], 1, None, Resumption(0, why="no variables were kept")),
    ],
)
def test_where_to_go_on(sources, finished, saved, expected) -> None:
    assert resumption(sources, finished, saved) == expected


def test_variables_on_ranks_are_not_kept() -> None:
    made = resumption(["%%pai_allreduce\nw = 1", "%%pai_allreduce\nw"], 1, set())
    assert made.first == 0
    assert "ranks" in made.why


def test_a_checkpoint_keeps_what_is_shared_and_leaves_out_what_cannot_be_pickled(tmp_path) -> None:
    path = tmp_path / "checkpoint.pkl"
    shared = [1]
    save(str(path), {"a": shared, "b": {"of": shared}, "os": os, "f": lambda: 1, "_h": 1, "In": []}, {"In": []})
    assert names_in(path) == {"a", "b", "os"}
    namespace: dict = {}
    restore(str(path), namespace)
    assert namespace["a"] is namespace["b"]["of"]
    assert namespace["os"] is os
    assert names_in(tmp_path / "none") is None
