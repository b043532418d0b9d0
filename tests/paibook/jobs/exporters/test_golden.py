"""Every target's files, word for word. ``PAIBOOK_WRITE_GOLDEN=1`` writes them anew, to be read before a commit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from paibook.jobs.exporters import TARGETS, export_job
from paibook.jobs.exporters.repository import PYTHON

GOLDEN = Path(__file__).parent / "golden"
# What of the job each target can express.
CHANGES = {
    "crontab": {"missed": "skip"},
    "github": {"missed": "skip"},
    "dlc": {"cron": "", "parameters": {"lr": 0.2}},
}


def exported(job, target, options):
    if target == "slurm":  # which takes no % in a path
        options = replace(options, folder=options.folder.with_name("out"))
    return export_job(replace(job, **CHANGES.get(target, {})), target, options)


# The image's recipe is the same for every target that takes one.
IMAGE = ("Dockerfile", ".dockerignore", "requirements.txt", "notebook.ipynb")


def golden(target, name):
    if name in IMAGE and not target.endswith("-dag"):
        return GOLDEN / "image" / name.removeprefix(".")
    return GOLDEN / target / name.replace(".github", "github").replace(".dockerignore", "dockerignore")


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "zip"])
def test_files_are_as_they_were_read(target, job, options, tmp_path):
    check_golden(target, exported(job, target, options), tmp_path)


def check_golden(target, files, tmp_path):
    for name, text in files.items():
        text = text.replace(str(tmp_path), "/srv").replace(f"python:{PYTHON}", "python:3.11")
        text = text.replace(f"python-version: '{PYTHON}'", "python-version: '3.11'")
        path = golden(target, name)
        if os.environ.get("PAIBOOK_WRITE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.read_text() == text, f"{path} differs"


def test_jobs_that_come_after_others_are_as_they_were_read(report, options, tmp_path):
    last, known = report
    files = export_job(last, "argo", replace(options, known=known))
    assert sorted(files) == sorted(
        ["cronworkflow.yaml", ".dockerignore", "Dockerfile", "requirements.txt"]
        + [f"{one.slug}.{kind}" for one in known.values() for kind in ("job.json", "ipynb")]
    )
    kept = {name: files[name] for name in ("cronworkflow.yaml", "Dockerfile", ".dockerignore")}
    check_golden("argo-dag", kept, tmp_path)
    # Airflow takes what did not run for what failed: here all are to succeed.
    last = replace(last, after=tuple(replace(dependency, when="success") for dependency in last.after))
    files = export_job(last, "airflow", replace(options, known=known))
    check_golden("airflow-dag", {"report_dag.py": files["report_dag.py"]}, tmp_path)


def test_no_secret_is_written(job, options, monkeypatch):
    monkeypatch.setenv("API_KEY", "s3cret-value")
    for target in TARGETS:
        for content in exported(job, target, options).values():
            assert "s3cret-value" not in (content if isinstance(content, str) else content.decode("latin-1"))
