"""Airflow: a DAG file that compiles, whose command comes through Jinja and a shell; and Airflow itself, if there."""

from __future__ import annotations

import ast
import shlex
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import jinja2
import pytest

from paibook.errors import PlanError
from paibook.jobs import Dependency, Job
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


class Recorder:
    """Stands in for a DAG, its timetable and its operators; writes down the tasks and what comes before each."""

    tasks: ClassVar[dict] = {}

    def __init__(self, *args, **words) -> None:
        self.words, self.before = words, []
        if "task_id" in words:
            self.tasks[words["task_id"]] = self

    def __rrshift__(self, before) -> None:
        self.before = [task.words["task_id"] for task in before]

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None: ...


def recorded(text):
    Recorder.tasks.clear()
    tree = ast.parse(text)
    tree.body = [node for node in tree.body if not isinstance(node, ast.Try | ast.ImportFrom | ast.Import)]
    names = dict.fromkeys(("DAG", "BashOperator", "CronTriggerTimetable"), Recorder)
    exec(compile(tree, "dag.py", "exec"), {**names, "pendulum": SimpleNamespace(parse=str)})
    return {name: (task.before, task.words.get("trigger_rule")) for name, task in Recorder.tasks.items()}


def test_jobs_come_after_jobs_in_one_dag(job, report, options):
    last, known = report
    options = replace(options, known=known)
    last = replace(last, after=tuple(replace(dependency, when="success") for dependency in last.after))
    files = export_job(last, "airflow", options)
    assert sorted(files) == [
        "2nd-check.job.json",
        "load-data.job.json",
        "nightly-training.job.json",
        "report.job.json",
        "report_dag.py",
    ]
    assert recorded(files["report_dag.py"]) == {
        "load-data": ([], None),
        "nightly-training": (["load-data"], None),
        "2nd-check": (["load-data"], None),
        "report": (["nightly-training", "2nd-check"], None),
    }
    text = files["report_dag.py"]
    assert ast.unparse(keyword(text, "schedule")) == "CronTriggerTimetable('30 3 * * 1-5', timezone='Asia/Shanghai')"
    alarm = Job("alarm", job.notebook, after=(Dependency("Load data", "failure"),))
    made = recorded(export_job(alarm, "airflow", options)["alarm_dag.py"])
    assert made["alarm"] == (["load-data"], "all_failed")


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ((Dependency("Lod data"),), "'Lod data', which is not known here; did you mean 'Load data'"),
        ((Dependency("Load data"), Dependency("other", "failure")), "failure and success, and Airflow has one rule"),
        ((Dependency("2nd check", "any"),), "Airflow takes '2nd check' for failed also where it did not run"),
        ((Dependency("Load data"), Dependency("weekly")), "'Load data' and 'weekly' come first and differ in cron"),
        ((Dependency("late"),), "'late' comes after others and has a schedule of its own"),
        ((Dependency("round"),), "job 'round' comes after itself, by way of last, round, round2"),
        ((Dependency("Load data"), Dependency("load_data")), "are both called 'load-data' there"),
    ],
)
def test_what_one_dag_cannot_say_is_refused(after, said, job, report, options):
    more = [replace(job, name=name) for name in ("other", "load_data")]
    more += [replace(job, name="weekly", cron="@weekly"), replace(job, name="late", after=(Dependency("other"),))]
    more += [replace(job, name="round", cron="", after=(Dependency("round2"),))]
    more += [replace(job, name="round2", cron="", after=(Dependency("round"),))]
    options = replace(options, known={**report[1], **{one.name: one for one in more}})
    with pytest.raises(PlanError, match=said):
        export_job(Job("last", job.notebook, after=after), "airflow", options)


@pytest.mark.parametrize("change", [{"missed": "skip"}, {"concurrency": "replace"}])
def test_what_a_dag_cannot_do_is_refused(change, job, options):
    with pytest.raises(PlanError, match=f"--without {next(iter(change))}"):
        export_job(replace(job, **change), "airflow", options)
