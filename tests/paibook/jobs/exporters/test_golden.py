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
    if name in IMAGE:
        return GOLDEN / "image" / name.removeprefix(".")
    return GOLDEN / target / name.replace(".github", "github")


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "zip"])
def test_files_are_as_they_were_read(target, job, options, tmp_path):
    files = exported(job, target, options)
    for name, text in files.items():
        text = text.replace(str(tmp_path), "/srv").replace(f"python:{PYTHON}", "python:3.11")
        text = text.replace(f"python-version: '{PYTHON}'", "python-version: '3.11'")
        path = golden(target, name)
        if os.environ.get("PAIBOOK_WRITE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.read_text() == text, f"{path} differs"


def test_no_secret_is_written(job, options, monkeypatch):
    monkeypatch.setenv("API_KEY", "s3cret-value")
    for target in TARGETS:
        for content in exported(job, target, options).values():
            assert "s3cret-value" not in (content if isinstance(content, str) else content.decode("latin-1"))
