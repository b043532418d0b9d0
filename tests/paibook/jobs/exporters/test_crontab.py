"""crontab: lines that cron reads, scripts that a shell runs, and secrets from a file."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from cronsim import CronSim

from paibook.errors import PlanError
from paibook.jobs import Job
from paibook.jobs.exporters import ExportOptions, export_job, write_files


@pytest.fixture
def job(job):
    return replace(job, missed="skip")


def line_of(text):
    (line,) = [line for line in text.splitlines() if line and not line.startswith(("#", "CRON_TZ="))]
    return line.split(maxsplit=5)


def as_cron_runs_it(command):
    """cron ends the command at the first % and takes the backslash from an escaped one."""
    assert "%" not in command.replace(r"\%", "")
    return command.replace(r"\%", "%")


def test_the_line_starts_the_job_with_its_secret(job, options, recorder, sh, words_of):
    options = replace(options, python=str(recorder.path))
    files = export_job(job, "crontab", options)
    write_files(files, options.folder)
    (options.folder / "nightly-training.env").write_text("API_KEY='a b$c'\n")
    *fields, command = line_of(files["nightly-training.crontab"])
    CronSim(" ".join(fields), options.now)
    assert "CRON_TZ=Asia/Shanghai" in files["nightly-training.crontab"]
    sh(as_cron_runs_it(command), env={"PATH": "/usr/bin:/bin"})
    assert recorder() == [words_of, "a b$c"]


def test_a_job_that_still_runs_is_not_started_again(job, options, recorder, sh):
    options = replace(options, python=str(recorder.path))
    write_files(export_job(replace(job, parameters={}), "crontab", options), options.folder)
    script, lock = options.folder / "nightly-training.sh", options.folder / ".nightly-training.lock"
    holder = subprocess.Popen(["flock", lock, "sh", "-c", "echo held; read x"], stdin=-1, stdout=-1, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        sh(f"'{script}'")
        with pytest.raises(FileNotFoundError):
            recorder()
    finally:
        holder.communicate("x\n", timeout=30)
    sh(f"'{script}'")
    assert recorder()[0]


def test_scripts_are_a_shells(job, options):
    text = export_job(job, "crontab", options)["nightly-training.sh"]
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_times_are_converted_to_the_clock_of_the_host(job, options):
    text = export_job(job, "crontab", replace(options, target_zone="UTC"))["nightly-training.crontab"]
    assert line_of(text)[:5] == ["30", "19", "*", "*", "0,1,2,3,4"]
    assert "CRON_TZ" not in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"missed": "once"}, "--to systemd|export it to systemd"),
        ({"missed": "catch-up"}, "runs nothing that it missed"),
        ({"concurrency": "replace"}, "--without concurrency"),
        ({"cron": "", "at": "2030-01-01T03:00"}, "cannot run a job once"),
        ({"cron": ""}, "has no schedule"),
        ({"cron": "0 0 L * *"}, "write the days out"),
    ],
)
def test_what_cron_cannot_do_is_refused(change, said, job, options):
    with pytest.raises(PlanError, match=said):
        export_job(replace(job, **change), "crontab", options)


def test_what_is_left_out_is_left_out_by_name(job, options):
    made = export_job(replace(job, missed="once"), "crontab", replace(options, without=frozenset({"missed"})))
    assert "30 3 * * 1-5" in made["nightly-training.crontab"]
    with pytest.raises(PlanError, match="did you mean 'missed'"):
        ExportOptions(without=frozenset({"mised"}))


def test_a_line_break_in_a_path_is_refused(job, options):
    with pytest.raises(PlanError, match="control character"):
        export_job(replace(job, notebook="/a\nb.ipynb"), "crontab", options)


@pytest.mark.slow
def test_the_script_runs_the_notebook(notebook_of, options, tmp_path, sh):
    path = notebook_of(tmp_path / "it's a.ipynb", ("lr = 0.1\nkey = ''", "parameters"), "print('got', lr, key)")
    job = Job("Real", str(path), {"lr": 0.5, "key": "env:API_KEY"}, cron="@daily", missed="skip")
    job = replace(job, output=str(tmp_path / "kept"))
    options = replace(options, python=sys.executable)
    write_files(export_job(job, "crontab", options), options.folder)
    (options.folder / "real.env").write_text("API_KEY='a secret'\n")
    paths = os.pathsep.join(sys.path)
    said = sh(f"'{options.folder}/real.sh'", env={**os.environ, "PYTHONPATH": paths, "PAIBOOK_JOBS": f"{tmp_path}/j"})
    assert "done" in said
    (kept,) = (tmp_path / "kept").iterdir()
    assert "got 0.5 a secret" in kept.read_text()
    assert "a secret" not in (options.folder / "real.job.json").read_text()
