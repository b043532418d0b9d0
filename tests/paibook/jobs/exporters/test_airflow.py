"""Airflow: a DAG file that compiles, whose command comes through Jinja and a shell; and Airflow itself, if there."""

from __future__ import annotations

import ast
import shlex
from dataclasses import replace

import jinja2
import pytest

from paibook.errors import PlanError
from paibook.jobs import Dependency
from paibook.jobs.exporters import export_job, write_files
from paibook.jobs.exporters.airflow import bash_template


def dag(job, options):
    text = export_job(job, "airflow", options)["nightly-training_dag.py"]
    compile(text, "dag.py", "exec")
    return text


def keyword(text, name):
    (found,) = [k.value for k in ast.walk(ast.parse(text)) if isinstance(k, ast.keyword) and k.arg == name]
    return found


def test_the_command_comes_through_jinja_and_the_shell(job, options, words_of):
    command = ast.literal_eval(keyword(dag(job, options), "bash_command"))
    assert "{{x}}" in job.notebook
    assert shlex.split(jinja2.Template(command).render()) == [options.python, *words_of]
    words = ["a {{ b }}", "{% endraw %}", "{# c #}", "d.sh"]
    made = jinja2.Template(bash_template(words), keep_trailing_newline=True).render()
    assert shlex.split(made) == words
    assert not made.endswith(".sh")


def test_schedule_and_policies(job, options):
    text = dag(job, options)
    assert ast.unparse(keyword(text, "schedule")) == "CronTriggerTimetable('30 3 * * 1-5', timezone='Asia/Shanghai')"
    assert ast.literal_eval(keyword(text, "catchup")) is False
    assert ast.literal_eval(keyword(text, "max_active_runs")) == 1
    assert ast.literal_eval(keyword(text, "env")) == {"API_KEY": "{{ var.value.API_KEY }}"}
    late = dag(replace(job, missed="catch-up", concurrency="allow"), options)
    assert ast.literal_eval(keyword(late, "catchup")) is True
    assert ast.literal_eval(keyword(late, "max_active_runs")) == 16
    once = dag(replace(job, cron="", at="2030-06-01T03:00", timezone="Europe/Berlin"), options)
    assert ast.literal_eval(keyword(once, "schedule")) == "@once"
    assert "2030-06-01T01:00:00+00:00" in once


def test_airflow_imports_it(job, options, monkeypatch, tmp_path):
    # Read when Airflow is imported.
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    models = pytest.importorskip("airflow.models", reason="Airflow is not installed")
    write_files(export_job(job, "airflow", options), options.folder)
    bag = models.DagBag(str(options.folder))
    assert bag.import_errors == {}
    assert list(bag.dags) == ["nightly-training"]


@pytest.mark.parametrize("change", [{"missed": "skip"}, {"concurrency": "replace"}, {"after": (Dependency("a"),)}])
def test_what_a_dag_cannot_do_is_refused(change, job, options):
    with pytest.raises(PlanError, match=f"--without {next(iter(change))}"):
        export_job(replace(job, **change), "airflow", options)
