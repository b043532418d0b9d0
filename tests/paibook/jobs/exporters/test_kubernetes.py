"""Kubernetes and Argo: manifests that the published schemas accept, and that say what the job says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from paibook.errors import PlanError
from paibook.jobs import Dependency, Job
from paibook.jobs.exporters import export_job
from paibook.resources import Resources


def documents(job, options, target="kubernetes", name="cronjob.yaml"):
    return list(yaml.safe_load_all(export_job(job, target, options)[name]))


@pytest.mark.parametrize("version", ["1.31", "1.34"])
def test_the_published_schema_accepts_them(version, job, options):
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    for document in documents(job, options):
        validate(document, version, strict=True)


def test_the_cron_job_says_what_the_job_says(job, options):
    job = replace(job, resources=Resources(workers=2, gpus_per_worker=1, memory=2**30), concurrency="replace")
    claim, cron_job = documents(job, options)
    spec = cron_job["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("30 3 * * 1-5", "Asia/Shanghai")
    assert (spec["concurrencyPolicy"], spec["suspend"]) == ("Replace", False)
    (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "2", "memory": "2304Mi"},
        "limits": {"memory": "2304Mi", "nvidia.com/gpu": "2"},
    }
    (secret,) = [entry for entry in container["env"] if entry["name"] == "API_KEY"]
    assert secret["valueFrom"] == {"secretKeyRef": {"name": "nightly-training", "key": "API_KEY"}}
    assert claim["metadata"]["name"] == "nightly-training-runs"


def test_a_deadline_stays_below_what_the_controller_gives_up_at(job, options):
    def deadline(**change):
        return documents(replace(job, **change), options)[1]["spec"]["startingDeadlineSeconds"]

    assert deadline(cron="* * * * *") == 90 * 60
    assert deadline(cron="0 0 * * *") == 7 * 24 * 3600
    assert deadline(missed="skip", grace=1.0) == 10


def test_the_image_has_the_job_without_this_hosts_paths(job, options):
    files = export_job(replace(job, output="/home/me/results", environment="/home/me/venv"), "kubernetes", options)
    inside = Job.from_json(files["job.json"])
    assert (inside.notebook, inside.environment) == ("/job/notebook.ipynb", "")
    assert inside.output == "/runs/outputs"
    assert (inside.retries, inside.timeout, inside.parameters["api_key"]) == (2, 600, "env:API_KEY")
    assert files["requirements.txt"] == "numpy==2.1.0\npaibook==0.1.0\n"
    assert all(not cell.get("outputs") for cell in json.loads(files["notebook.ipynb"])["cells"])


def test_argo_says_the_same(job, options):
    (made,) = documents(job, options, "argo", "cronworkflow.yaml")
    spec = made["spec"]
    assert (made["kind"], spec["schedules"], spec["timezone"]) == ("CronWorkflow", ["30 3 * * 1-5"], "Asia/Shanghai")
    names = [template["name"] for template in spec["workflowSpec"]["templates"]]
    assert names == [spec["workflowSpec"]["entrypoint"]]
    assert (
        documents(replace(job, missed="skip"), options, "argo", "cronworkflow.yaml")[0]["spec"][
            "startingDeadlineSeconds"
        ]
        == 0
    )


@pytest.mark.parametrize("target", ["kubernetes", "argo"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"missed": "catch-up"}, "--without missed"),
        ({"after": (Dependency("a"),)}, "--without after"),
        ({"cron": "", "at": "2030-01-01"}, "--without schedule"),
        ({"cron": "0 0 */2 * 1"}, "write the days out"),
        ({"parameters": {"api_key": "keyring:mail/me"}}, "no keyring"),
        ({"notebook": "/nowhere/a.ipynb"}, "there is no notebook"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(target, change, said, job, options):
    with pytest.raises(PlanError, match=said):
        export_job(replace(job, **change), target, options)


def test_argo_runs_jobs_after_jobs(report, options):
    last, known = report
    last = replace(last, after=(Dependency("Nightly training", "failure"), Dependency("2nd check", "any")))
    files = export_job(last, "argo", replace(options, known=known))
    spec = yaml.safe_load(files["cronworkflow.yaml"])["spec"]
    assert (spec["schedules"], spec["timezone"]) == (["30 3 * * 1-5"], "Asia/Shanghai")
    entry, *templates = spec["workflowSpec"]["templates"]
    assert spec["workflowSpec"]["entrypoint"] == entry["name"]
    assert {task["name"]: task.get("depends") for task in entry["dag"]["tasks"]} == {
        "load-data": None,
        "nightly-training": "(load-data.Succeeded)",
        "job-2nd-check": "(load-data.Succeeded)",
        "report": "(nightly-training.Failed || nightly-training.Errored) && "
        "(job-2nd-check.Succeeded || job-2nd-check.Failed || job-2nd-check.Errored)",
    }
    claims = [claim["metadata"]["name"] for claim in spec["workflowSpec"]["volumeClaimTemplates"]]
    for template, claim in zip(templates, claims, strict=True):
        *_, notebook, _, path = template["container"]["command"]
        inside = Job.from_json(files[path.removeprefix("/job/")])
        assert (inside.notebook, inside.after) == (notebook, ())
        assert json.loads(files[notebook.removeprefix("/job/")])["cells"]
        assert template["container"]["volumeMounts"] == [{"name": claim, "mountPath": "/runs"}]
        assert path.removeprefix("/job/") in files["Dockerfile"]


def test_data_of_this_host_is_refused(notebook_of, options, tmp_path):
    (tmp_path / "data.csv").write_text("1")
    path = notebook_of(tmp_path / "a.ipynb", ("data = ''", "parameters"))
    job = Job("a", str(path), {"data": "s3://bucket/data.csv"}, cron="@daily")
    assert "cronjob.yaml" in export_job(job, "kubernetes", options)
    with pytest.raises(PlanError, match=r"parameter data names 'data.csv' on this host.* s3://bucket/data"):
        export_job(replace(job, parameters={"data": "data.csv"}), "kubernetes", options)


def test_an_image_has_to_be_named(job, options):
    with pytest.raises(PlanError, match=r"--image registry\.example/me/nightly-training:1"):
        export_job(job, "kubernetes", replace(options, image=""))
