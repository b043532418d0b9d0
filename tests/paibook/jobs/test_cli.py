"""The command line: what it prints, its exit codes, and ``--json``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from paibook.jobs.cli import main
from paibook.settings import settings


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setenv("PAIBOOK_JOBS", str(tmp_path / "jobs"))
    settings.cache_clear()
    yield lambda *words: main(["job", *map(str, words)])
    settings.cache_clear()


def test_a_job_is_added_shown_exported_and_deleted(job, tmp_path, notebook_of, capsys) -> None:
    path = notebook_of(tmp_path / "fit.ipynb", ("lr = 0.1", "parameters"))
    assert (
        job("add", path, "--cron", "@daily", "-p", "lr=0.5", "--retries", 2, "--env", "A=1", "--email", "a@b.org") == 0
    )
    assert "fit: " in capsys.readouterr().out
    assert job("show", "fit", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["parameters"], shown["retries"], len(shown["next"])) == ({"lr": 0.5}, 2, 5)
    assert shown["notify"]["email"] == ["a@b.org"]
    assert job("export", "fit") == 0
    (tmp_path / "spec.json").write_text(capsys.readouterr().out)
    assert job("add", path, "--spec", tmp_path / "spec.json", "--name", "other", "--timezone", "Asia/Tokyo") == 0
    capsys.readouterr()
    assert job("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["fit", "other"]
    assert rows[1]["retries"] == 2
    assert job("delete", "other") == 0
    assert job("list") == 0
    assert "other  " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add", "no.ipynb"], "there is no notebook"),
        (["show", "no"], "no run and no job with runs is called 'no'"),
        (["run", "no"], "no job is called 'no'; there are none yet"),
        (["stop", "no"], "no run and no job"),
        (["diff", "a", "b"], "no run and no job"),
    ],
)
def test_what_is_wrong_is_said_with_code_two(job, words, says, capsys) -> None:
    assert job(*words) == 2
    assert says in capsys.readouterr().err


def test_after_wants_a_job_and_no_circle(job, tmp_path, notebook_of, capsys) -> None:
    path = notebook_of(tmp_path / "a.ipynb", "1")
    assert job("add", path, "--after", "b") == 2
    assert "comes after 'b', and there is no such job" in capsys.readouterr().err
    assert job("add", path) == 0
    assert job("add", path, "--name", "b", "--after", "a:any") == 0
    assert job("add", path, "--after", "b", "--replace") == 2
    assert "would come after itself, by way of b" in capsys.readouterr().err
    assert job("delete", "a") == 2
    assert job("add", path, "--name", "c", "--at", "2020-01-01T00:00") == 2
    assert "which has passed" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PAIBOOK_JOBS", str(tmp_path / "file" / "jobs"))
    settings.cache_clear()
    assert main(["job", "list"]) == 2
    assert "set PAIBOOK_JOBS to a folder" in capsys.readouterr().err
    settings.cache_clear()


def test_without_the_extra_the_program_names_it() -> None:
    block = "import sys; sys.modules['nbclient'] = None; sys.argv = ['paibook', 'job', 'list']"
    command = [sys.executable, "-c", f"{block}; from paibook.jobs.command import main; sys.exit(main())"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "paibook: running jobs needs the extra `jobs`: pip install 'paibook[jobs]'\n",
    )
