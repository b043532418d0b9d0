"""The command line: ``paibook job ...``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from paibook.errors import PaibookError, PlanError
from paibook.jobs import actions
from paibook.jobs.cli_options import add_job_options, job_from
from paibook.jobs.exporters.options import add_export_options, export_files, import_archive
from paibook.jobs.notebook import parameters_of, read_notebook
from paibook.jobs.parameters import parse_value, parse_values
from paibook.jobs.records import DONE, ENDED, JobRun
from paibook.jobs.scheduler import Scheduler, drain
from paibook.jobs.store import JobStore
from paibook.settings import settings


def main(arguments: list[str] | None = None) -> int:
    """Carry out a command line; returns the exit code: 0, 1 where a run failed, 2 where the command is wrong."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.command(JobStore(settings().jobs), options)
    except PaibookError as error:
        print(f"paibook: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        return 0
    return code


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(prog="paibook", description="Notebooks as jobs.")
    verbs = top.add_subparsers(required=True, metavar="job").add_parser("job", help="jobs and their runs")
    commands = verbs.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Callable[[JobStore, Any], int], text: str, *names: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument("--json", action="store_true", help="print JSON")
        for argument in names:
            made.add_argument(argument)
        made.set_defaults(command=function)
        return made

    add = command("add", _add, "keep a job: a notebook with a schedule", "notebook")
    add_job_options(add)
    add.add_argument("--replace", action="store_true", help="in place of the job of that name")
    run = command("run", _run, "run a job or a notebook now, and wait for it", "target")
    add_job_options(run)
    run.add_argument("--each", action="append", default=[], metavar="NAME=A,B", help="a run for each value")
    run.add_argument("--parallel", type=int, default=1, metavar="N", help="runs at a time (default 1)")
    command("list", _list, "the jobs, or the runs of one").add_argument("name", nargs="?", default="")
    command("show", _show, "a job with its next fire times, or a run", "name")
    command("logs", _logs, "what a run printed", "run").add_argument("--follow", "-f", action="store_true")
    command("stop", _stop, "stop a run", "run")
    command("resume", _resume, "go on with a run at its first unfinished cell", "run")
    command("rerun", _rerun, "run again what a run ran", "run")
    command("delete", _delete, "forget a job, or an ended run", "name")
    add_export_options(command("export", _export, "a job as JSON, or as files for another scheduler", "name"))
    imported = command("import", _import, "keep the job of an archive made by `export --to zip`", "archive")
    imported.add_argument("-o", "--folder", default=".", help="where its folder is made (default: here)")
    command("diff", _diff, "what differs between two runs", "first", "second")
    serve = command("serve", _serve, "run what is due, until Ctrl-C or SIGTERM")
    serve.add_argument("--most", type=int, default=4, metavar="N", help="runs at a time (default 4)")
    return top


def _add(store: JobStore, options: Any) -> int:
    job = job_from(options, options.notebook)
    actions.schedule(store, job, options.replace)
    _print(options, {**job.to_dict(), "next": _times(job)}, _described(job))
    return 0


def _run(store: JobStore, options: Any) -> int:
    if options.target.endswith(".ipynb"):
        job = job_from(options, options.target)
    else:
        job = store.job(options.target)
        known = parameters_of(read_notebook(Path(job.notebook)))
        job = replace(job, parameters={**job.parameters, **parse_values(options.parameter, known)})
    if options.parallel < 1:
        raise PlanError(f"--parallel takes a whole number from 1 up; got {options.parallel}")
    made = actions.queue(store, job, actions.parse_grid(options.each, parse_value))
    if not options.json:
        print("\n".join(made), flush=True)
    return _wait(store, options, made, options.parallel)


def _list(store: JobStore, options: Any) -> int:
    if options.name:
        runs = store.runs(store.job(options.name).name if not store.runs(options.name) else options.name)
        _print(options, [run.to_dict() for run in runs], "\n".join(_line(run) for run in runs) or "no runs yet")
        return 0
    rows, lines = [], []
    for job in store.jobs():
        latest = next(iter(store.runs(job.name)), None)
        following = next(iter(job.next_times(1)), None)
        rows.append({**job.to_dict(), "latest": latest.to_dict() if latest else None, "next": _times(job)})
        when = following.isoformat(timespec="minutes") if following else "when asked"
        lines.append(f"{job.name:30} next {when:25} latest {latest.state if latest else 'none'}")
    _print(options, rows, "\n".join(lines) or "no jobs yet: `paibook job add NOTEBOOK --cron '0 3 * * *'` makes one")
    return 0


def _show(store: JobStore, options: Any) -> int:
    jobs = [job for job in store.jobs() if job.name == options.name]
    if jobs:
        _print(options, {**jobs[0].to_dict(), "next": _times(jobs[0])}, _described(jobs[0]))
        return 0
    run = store.run(options.name)
    folder = store.folder(run.id)
    _print(options, {**run.to_dict(), "folder": str(folder)}, f"{_line(run)}\n{run.traceback}\nfolder: {folder}")
    return 0


def _logs(store: JobStore, options: Any) -> int:
    shown = ""
    while True:
        run = store.run(options.run)
        text = actions.logs(store, run.id)
        over = run.state in ENDED or not options.follow
        if options.json:
            if over:
                _print(options, {"run": run.id, "state": run.state, "text": text}, "")
        else:
            # Progress bars rewrite what they printed; then the whole is shown again.
            print(text[len(shown) :] if text.startswith(shown) else text, end="", flush=True)
            shown = text
        if over:
            return 0
        time.sleep(1.0)


def _stop(store: JobStore, options: Any) -> int:
    run = actions.stop(store, options.run)
    _print(options, run.to_dict(), _line(run))
    return 0


def _resume(store: JobStore, options: Any) -> int:
    return _wait(store, options, [actions.resume(store, options.run)])


def _rerun(store: JobStore, options: Any) -> int:
    return _wait(store, options, [actions.rerun(store, options.run)])


def _delete(store: JobStore, options: Any) -> int:
    if any(job.name == options.name for job in store.jobs()):
        store.delete(options.name)
    else:
        actions.delete_run(store, options.name)
    _print(options, {"deleted": options.name}, f"deleted {options.name}")
    return 0


def _export(store: JobStore, options: Any) -> int:
    if not options.to:
        print(store.job(options.name).to_json())
        return 0
    paths = [str(path) for path in export_files(store.job(options.name), options, store.jobs())]
    _print(options, {"files": paths}, "\n".join(paths))
    return 0


def _import(store: JobStore, options: Any) -> int:
    job, missing = import_archive(options)
    actions.schedule(store, job)
    _print(options, {**job.to_dict(), "next": _times(job), "missing": missing}, "\n".join([_described(job), *missing]))
    return 0


def _diff(store: JobStore, options: Any) -> int:
    found = actions.diff(store, options.first, options.second)
    lines = [f"{name}: {before} -> {after}" for name, (before, after) in found.items()]
    _print(options, found, "\n".join(lines) or "the same")
    return 0


def _serve(store: JobStore, options: Any) -> int:
    scheduler = Scheduler(store, options.most)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: scheduler.stop())
    print(f"serving {store.path}; Ctrl-C ends it, the runs that it started go on", file=sys.stderr, flush=True)
    scheduler.serve()
    return 0


def _wait(store: JobStore, options: Any, run_ids: list[str], parallel: int = 1) -> int:
    runs = [store.run(run_id) for run_id in drain(store, run_ids, parallel)]
    lines = [f"{_line(run)}\n{run.traceback}".rstrip() for run in runs]
    _print(options, [run.to_dict() for run in runs], "\n".join(lines))
    return 0 if all(run.state == DONE for run in runs) else 1


def _line(run: JobRun) -> str:
    seconds = f" {(run.ended or time.time()) - run.started:6.1f} s" if run.started else ""
    return f"{run.id}  {run.state}{seconds}  {run.error}".rstrip()


def _described(job: Any) -> str:
    times = "\n".join(f"  {text}" for text in _times(job)) or "  when asked, or after another job"
    return f"{job.name}: {job.notebook}\nnext:\n{times}"


def _times(job: Any) -> list[str]:
    return [moment.isoformat(timespec="seconds") for moment in job.next_times()]


def _print(options: Any, values: Any, text: str) -> None:
    print(json.dumps(values, indent=2) if options.json else text)


if __name__ == "__main__":
    sys.exit(main())
