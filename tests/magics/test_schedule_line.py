"""``%pai_schedule`` makes the job that ``paibook job add`` makes."""

from __future__ import annotations

import json

import pytest

from paibook.errors import PaibookError, PlanError
from paibook.jobs.store import JobStore
from paibook.settings import settings
from paibook_magics.schedule_line import pai_schedule


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PAIBOOK_JOBS", str(tmp_path / "jobs"))
    settings.cache_clear()
    cell = {"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "source": "lr = 0.1", "outputs": []}
    spec = {"kernelspec": {"name": "python3", "display_name": "Python"}}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": spec, "cells": [{**cell, "execution_count": None}]}
    (tmp_path / "my fit.ipynb").write_text(json.dumps(notebook))
    yield tmp_path
    settings.cache_clear()


def test_a_job_is_kept_listed_and_deleted(folder, capsys) -> None:
    assert pai_schedule("") is None
    pai_schedule(f"'{folder}/my fit.ipynb' --cron '0 3 * * *' -p lr=0.5 -n 3 --timezone Europe/Berlin")
    assert "job 'my fit' is kept" in capsys.readouterr().out
    [job] = JobStore(settings().jobs).jobs()
    assert (job.cron, dict(job.parameters), job.resources.workers) == ("0 3 * * *", {"lr": 0.5}, 3)
    assert list(pai_schedule("")["job"]) == ["my fit"]
    with pytest.raises(PaibookError, match="there is a job called 'my fit'"):
        pai_schedule(f"'{folder}/my fit.ipynb' --cron @daily")
    pai_schedule("delete my fit")
    assert JobStore(settings().jobs).jobs() == []


def test_a_wrong_line_is_named(folder) -> None:
    with pytest.raises(PlanError, match="unrecognized arguments: --corn"):
        pai_schedule(f"'{folder}/my fit.ipynb' --corn x")
    with pytest.raises(PlanError, match="did you mean 'lr'"):
        pai_schedule(f"'{folder}/my fit.ipynb' -p l=1")
    with pytest.raises(PlanError, match="there is no notebook"):
        pai_schedule(f"'{folder}/fit.ipynb'")
