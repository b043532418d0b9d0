"""What can be done with jobs and runs; the command line, the magic and JupyterLab's dialog all do it by these."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat

from paibook.errors import PaibookError, PlanError
from paibook.jobs.attempt import OUTPUT, SOURCE
from paibook.jobs.claims import is_alive
from paibook.jobs.job import Job
from paibook.jobs.kernel import end_processes
from paibook.jobs.notebook import check_job
from paibook.jobs.provenance import differences
from paibook.jobs.records import DONE, ENDED, QUEUED, RUNNING, STOPPED, JobRun
from paibook.jobs.runner import LOG
from paibook.jobs.store import JobStore

STOP_SECONDS = 20.0


def schedule(store: JobStore, job: Job, replace_old: bool = False) -> None:
    """Keep a job, held against its notebook first."""
    check_job(job)
    store.save(job, replace_old)


def queue(store: JobStore, job: Job, grid: Mapping[str, Sequence[Any]] | None = None) -> list[str]:
    """Queue a run now, or one for each point of a grid of parameters; returns their ids.

    Raises:
        PlanError: A parameter that the notebook does not take; nothing is queued.
    """
    grid = grid or {}
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    jobs = [replace(job, parameters={**job.parameters, **point}) for point in points]
    if len(jobs) > 1:
        jobs = [replace(one, concurrency="allow") for one in jobs]
    for one in jobs:
        check_job(one)
    made = [store.add_run(one, "user") for one in jobs]
    return [run_id for run_id in made if run_id is not None]


def stop(store: JobStore, run_id: str, seconds: float = STOP_SECONDS) -> JobRun:
    """Stop a run and wait until its processes are gone.

    Its own process ends it, wherever that is. Where that does not come about in time, and it is on this host, its
    processes are killed.

    Raises:
        PaibookError: It has ended already, or runs on another host that does not answer.
    """
    run = store.run(run_id)
    if run.state in ENDED:
        raise PaibookError(f"run {run.id} has ended: {run.state}")
    store.update(run.id, stop=1)
    if run.state == QUEUED:
        store.update(run.id, state=STOPPED, ended=time.time(), error="stopped before it began")
        return store.run(run.id)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run = store.run(run.id)
        if run.state in ENDED:
            return run
        if run.state == RUNNING and not is_alive(run, time.time()):
            break
        time.sleep(0.1)
    end_processes(run.id)
    if run.state == RUNNING and not is_alive(run, time.time()):
        store.update(run.id, state=STOPPED, ended=time.time(), error="stopped")
        return store.run(run.id)
    raise PaibookError(f"run {run.id} does not stop; it runs on {run.host} as process {run.pid}")


def resume(store: JobStore, run_id: str) -> str:
    """Queue a failed or stopped run again, to go on at its first unfinished cell; returns its id.

    Raises:
        PaibookError: It has not ended that way.
    """
    run = store.run(run_id)
    if run.state not in ENDED or run.state == DONE:
        raise PaibookError(f"run {run.id} is {run.state}; only a run that failed or was stopped can go on")
    again = {"due": time.time(), "attempt": run.attempt + 1, "stop": 0, "pid": 0, "host": "", "error": ""}
    store.update(run.id, state=QUEUED, resume=1, ended=None, traceback="", **again)
    return run.id


def rerun(store: JobStore, run_id: str) -> str:
    """Queue a new run of the same notebook, as it was, with the same job; returns its id."""
    run = store.run(run_id)
    made = store.add_run(run.job, "rerun", due=time.time() + 3600)
    assert made is not None
    source, folder = store.folder(run.id) / SOURCE, store.folder(made)
    folder.mkdir(parents=True, mode=0o700)
    if source.exists():
        shutil.copyfile(source, folder / SOURCE)
    store.update(made, due=time.time())
    return made


def delete_run(store: JobStore, run_id: str) -> None:
    """Forget an ended run with its folder."""
    run = store.run(run_id)
    if run.state not in ENDED:
        raise PaibookError(f"run {run.id} is {run.state}; stop it first")
    with store.transaction() as db:
        db.execute("DELETE FROM pai_runs WHERE id = ?", (run.id,))
    shutil.rmtree(store.folder(run.id), ignore_errors=True)


def diff(store: JobStore, first: str, second: str) -> dict[str, tuple[Any, Any]]:
    """What differs between what two runs ran, by dotted name."""
    return differences(store.run(first).provenance, store.run(second).provenance)


def logs(store: JobStore, run_id: str) -> str:
    """What a run's cells printed so far, and what its process said."""
    run = store.run(run_id)
    folder = store.folder(run.id)
    texts = [text for cell in cells(folder) for text in output_texts(cell)]
    log = folder / LOG
    said = log.read_text(errors="replace") if log.exists() else ""
    return "".join(texts) + (f"--- process\n{said}" if said else "")


def cells(folder: Path) -> list[Any]:
    """The cells of a run's notebook as far as it came."""
    try:
        return list(nbformat.read(folder / OUTPUT, as_version=4).cells)
    except (OSError, ValueError):
        return []


def output_texts(cell: Any) -> list[str]:
    """The outputs of a cell as text, in order."""
    texts = []
    for output in cell.get("outputs", ()):
        if output.output_type == "stream":
            texts.append(output.text)
        elif output.output_type == "error":
            texts.append(f"{output.ename}: {output.evalue}\n")
        elif "text/plain" in output.get("data", {}):
            texts.append(output.data["text/plain"] + "\n")
    return texts


def results(store: JobStore, run_ids: Sequence[str]) -> Any:
    """Runs as a DataFrame: a row each, with parameters, state, seconds and the text of the last cell's result."""
    import pandas

    rows = []
    for run_id in run_ids:
        run = store.run(run_id)
        seconds = (run.ended or time.time()) - run.started if run.started else None
        last = next((t for cell in reversed(cells(store.folder(run.id))) if (t := output_texts(cell))), [""])
        rows.append({**run.job.parameters, "state": run.state, "seconds": seconds, "result": last[-1].strip()})
    return pandas.DataFrame(rows, index=list(run_ids))


def parse_grid(words: Sequence[str], parse: Any) -> dict[str, list[Any]]:
    """``name=a,b`` words as a grid.

    Raises:
        PlanError: A word without values.
    """
    grid: dict[str, list[Any]] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator or not name.isidentifier() or not text:
            raise PlanError(f"--each is given as name=value,value, such as lr=0.1,0.01; got {word!r}")
        grid[name] = [parse(value) for value in text.split(",")]
    return grid
