"""Argo Workflows: a CronWorkflow (argoproj.io/v1alpha1), and the image's recipe."""

from __future__ import annotations

from typing import Any

from paibook.jobs.exporters.cron_fields import portable
from paibook.jobs.exporters.image import image_files
from paibook.jobs.exporters.kubernetes import POLICIES, deadline, header, need_schedule, pod_spec
from paibook.jobs.exporters.request import ExportOptions
from paibook.jobs.exporters.yaml_text import yaml_text
from paibook.jobs.job import Job

KEPT = 3


def export(job: Job, options: ExportOptions) -> dict[str, str]:
    """``cronworkflow.yaml`` for Argo 3.6 or newer, and the image's files.

    Raises:
        PlanError: It runs once, comes after other jobs, catches up, or its data lies on this host alone.
    """
    need_schedule(job, options, "a CronWorkflow")
    text = yaml_text(_cron_workflow(job, options), header=header(job, "argo cron create cronworkflow.yaml"))
    return {"cronworkflow.yaml": text, **image_files(job, options, "a cluster")}


def _cron_workflow(job: Job, options: ExportOptions) -> dict[str, Any]:
    pod = pod_spec(job, options)
    # Argo makes the claim with the workflow's own life, so that it need not be there before.
    claim = {
        "metadata": {"name": "runs"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}},
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "CronWorkflow",
        "metadata": {"name": job.slug, "labels": {"app.kubernetes.io/managed-by": "paibook"}},
        "spec": {
            "schedules": [portable(job.cron)] if job.cron else [],
            "timezone": job.timezone,
            "concurrencyPolicy": POLICIES[job.concurrency],
            # Argo reads 0 as "nothing that was missed".
            "startingDeadlineSeconds": 0 if job.missed == "skip" else deadline(job, options),
            "successfulJobsHistoryLimit": job.keep or KEPT,
            "failedJobsHistoryLimit": job.keep or KEPT,
            "workflowSpec": {
                "entrypoint": "job",
                "securityContext": pod["securityContext"],
                "volumeClaimTemplates": [claim],
                # Kept with the workflow that failed, so that its partial output can be read.
                "volumeClaimGC": {"strategy": "OnWorkflowSuccess"},
                "templates": [{"name": "job", "container": _container(pod)}],
            },
        },
    }


def _container(pod: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = {key: value for key, value in pod["containers"][0].items() if key != "name"}
    return container
