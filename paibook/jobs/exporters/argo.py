"""Argo Workflows: a CronWorkflow (argoproj.io/v1alpha1), and the image's recipe."""

from __future__ import annotations

from typing import Any

from paibook.jobs.exporters.cron_fields import portable
from paibook.jobs.exporters.graph import first_of, with_predecessors
from paibook.jobs.exporters.image import command, image_files
from paibook.jobs.exporters.kubernetes import POLICIES, deadline, header, need_schedule, pod_spec
from paibook.jobs.exporters.request import ExportOptions
from paibook.jobs.exporters.yaml_text import yaml_text
from paibook.jobs.job import Dependency, Job, slug_of

KEPT = 3
ENTRY = "all--jobs"  # no slug has two hyphens in a row
# How a task of a DAG has ended, in Argo's words.
RESULTS = {"success": ("Succeeded",), "failure": ("Failed", "Errored"), "any": ("Succeeded", "Failed", "Errored")}


def export(job: Job, options: ExportOptions) -> dict[str, str]:
    """``cronworkflow.yaml`` for Argo 3.6 or newer, and the image's files; a ``dag`` where it comes after other jobs.

    Raises:
        PlanError: It runs once, catches up, comes after jobs with schedules of their own, or its data lies on this host
            alone.
    """
    jobs = with_predecessors(job, options)
    first = first_of(jobs)
    need_schedule(first, options, "a CronWorkflow")
    lines = header(job, "argo cron create cronworkflow.yaml", jobs)
    text = yaml_text(_cron_workflow(job, first, jobs, options), header=lines)
    return {"cronworkflow.yaml": text, **image_files(jobs, options, "a cluster")}


def _cron_workflow(job: Job, first: Job, jobs: list[Job], options: ExportOptions) -> dict[str, Any]:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "CronWorkflow",
        "metadata": {"name": job.slug, "labels": {"app.kubernetes.io/managed-by": "paibook"}},
        "spec": {
            "schedules": [portable(first.cron)] if first.cron else [],
            "timezone": first.timezone,
            "concurrencyPolicy": POLICIES[first.concurrency],
            # Argo reads 0 as "nothing that was missed".
            "startingDeadlineSeconds": 0 if first.missed == "skip" else deadline(first, options),
            "successfulJobsHistoryLimit": job.keep or KEPT,
            "failedJobsHistoryLimit": job.keep or KEPT,
            "workflowSpec": _workflow(jobs, options),
        },
    }


def _workflow(jobs: list[Job], options: ExportOptions) -> dict[str, Any]:
    pods = [pod_spec(job, options, command(job, jobs)) for job in jobs]
    names, claims = ["job"], ["runs"]
    templates: list[dict[str, Any]] = []
    if len(jobs) > 1:
        names = [_name(job.name) for job in jobs]
        claims = [f"runs-{name}" for name in names]  # two tasks at once may be on two nodes
        # One branch that fails leaves the others be, as in paibook.
        dag = {"failFast": False, "tasks": [_task(job) for job in jobs]}
        templates = [{"name": ENTRY, "dag": dag}]
    for name, claim, pod in zip(names, claims, pods, strict=True):
        templates.append({"name": name, "container": _container(pod, claim)})
    return {
        "entrypoint": templates[0]["name"],
        "securityContext": pods[0]["securityContext"],
        # Argo makes the claims with the workflow's own life, so that they need not be there before.
        "volumeClaimTemplates": [_claim(name) for name in claims],
        # Kept with the workflow that failed, so that its partial output can be read.
        "volumeClaimGC": {"strategy": "OnWorkflowSuccess"},
        "templates": templates,
    }


def _task(job: Job) -> dict[str, Any]:
    task = {"name": _name(job.name), "template": _name(job.name)}
    if job.after:
        task["depends"] = " && ".join(f"({_ended(dependency)})" for dependency in job.after)
    return task


def _ended(dependency: Dependency) -> str:
    name = _name(dependency.job)
    return " || ".join(f"{name}.{result}" for result in RESULTS[dependency.when])


def _name(name: str) -> str:
    """Of a job's task: ``depends`` knows none that begins with a digit."""
    slug = slug_of(name)
    return slug if slug[0].isalpha() else f"job-{slug}"


def _claim(name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    return {"metadata": {"name": name}, "spec": spec}


def _container(pod: dict[str, Any], claim: str) -> dict[str, Any]:
    container: dict[str, Any] = {key: value for key, value in pod["containers"][0].items() if key != "name"}
    container["volumeMounts"] = [{**mount, "name": claim} for mount in container["volumeMounts"]]
    return container
