"""A job whose names and paths try every target's quoting, and options that do not depend on this machine."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from paibook.jobs import Dependency, Job, Notification
from paibook.jobs.exporters import ExportOptions
from paibook.resources import Resources

CELLS = (
    ('lr: float = 0.1\napi_key = ""\nwords = 3', "parameters"),
    "%load_ext paibook\nlines = ['to be', 'or not to be'] * words",
    "%%pai_mapreduce -i lines -o counts\n"
    "def map(record):\n    for word in record.split():\n        yield word, 1\n\n"
    "def reduce(key, values):\n    yield key, sum(values)",
    '%%pai_allreduce -n 2 --hp lr={lr} --push words -o sums\ntext = """\nnot moved\n"""\ncomm.allreduce(words * hp.lr)',
    "print(dict(counts)['be'], sums[0])",
)


@pytest.fixture
def notebook(tmp_path, notebook_of):
    """In a Git repository's folder, with a name that shells and templates could misread."""
    folder = tmp_path / "repo"
    (folder / ".git").mkdir(parents=True)
    return notebook_of(folder / "it's 100% {{x}} $HOME.ipynb", *CELLS)


@pytest.fixture
def job(notebook):
    return Job(
        "Nightly training",
        str(notebook),
        {"lr": 0.2, "api_key": "env:API_KEY"},
        cron="30 3 * * 1-5",
        timezone="Asia/Shanghai",
        resources=Resources(workers=2, memory=2**30),
        retries=2,
        timeout=600,
        notify=Notification(email=("me@example.org",)),
    )


@pytest.fixture
def report(job):
    """The last of four jobs: load, then the nightly training and a check of it, and a report however these end."""
    one = {"notebook": job.notebook, "parameters": {"api_key": "env:OTHER_KEY"}}
    load = replace(job, name="Load data", parameters={}, resources=Resources())
    train = replace(job, cron="", timezone="UTC", after=(Dependency("Load data"),))
    check = Job("2nd check", **one, after=(Dependency("Load data"),))
    made = Job("report", **one, after=(Dependency("Nightly training", "any"), Dependency("2nd check", "any")))
    return made, {one.name: one for one in (load, train, check, made)}


@pytest.fixture
def options(tmp_path):
    return ExportOptions(
        folder=tmp_path / "out 100%",
        image="registry.example/me/nightly:1",
        python="/opt/venv/bin/python",
        packages=("numpy==2.1.0", "paibook==0.1.0"),
        now=datetime(2026, 1, 15, tzinfo=UTC),
    )


@pytest.fixture
def recorder(tmp_path):
    """A program that writes its words, and the secret it was given, to a file; ``recorder()`` reads them."""
    path, record = tmp_path / "record it", tmp_path / "record.json"
    path.write_text(
        "#!/usr/bin/env python3\nimport json, os, sys\n"
        f"open({str(record)!r}, 'w').write(json.dumps([sys.argv[1:], os.environ.get('API_KEY')]))\n"
    )
    path.chmod(0o755)

    def read():
        return json.loads(record.read_text())

    read.path = path
    return read


@pytest.fixture
def sh():
    """Runs a shell command line and returns what it printed."""

    def run(line, **kwargs):
        done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, timeout=60, **kwargs)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def words_of(job, options):
    """The words that start the job on this host."""
    spec = Path(options.folder) / "nightly-training.job.json"
    return ["-m", "paibook.jobs.command", "job", "run", job.notebook, "--spec", str(spec)]
