"""Kubernetes: a CronJob (batch/v1), a claim for what its runs leave, and the image's recipe."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from paibook.jobs.exporters.command import cards, cores, memory, secret_names
from paibook.jobs.exporters.cron_fields import portable
from paibook.jobs.exporters.image import RUNS, USER, command, image_files, need_image
from paibook.jobs.exporters.request import ExportOptions, need, need_cron, need_no_predecessors
from paibook.jobs.exporters.yaml_text import yaml_text
from paibook.jobs.job import Job
from paibook.jobs.schedule import fire_times

POLICIES = {"forbid": "Forbid", "allow": "Allow", "replace": "Replace"}
# The controller gives up on a job that has missed more than 100 times within its deadline.
MOST_MISSED = 90
LONGEST_DEADLINE = 7 * 24 * 3600
KEPT = 3


def export(job: Job, options: ExportOptions) -> dict[str, str]:
    """``cronjob.yaml`` and the image's files.

    Raises:
        PlanError: It runs once, comes after other jobs, catches up, or its data lies on this host alone.
    """
    need_schedule(job, options, "a CronJob")
    text = yaml_text(_claim(job), _cron_job(job, options), header=header(job, "kubectl apply -f cronjob.yaml", [job]))
    return {"cronjob.yaml": text, **image_files([job], options, "a cluster")}


def need_schedule(job: Job, options: ExportOptions, target: str) -> None:
    """Refuse what no schedule of a cluster can express: once, after others, every missed time."""
    need_cron(job, options, target)
    need_no_predecessors(job, options, target)
    why = f"{target} runs once what was missed, however much that is"
    need(job.missed != "catch-up", job, options, "missed", why, "take --missed once, or export it to airflow")


def header(job: Job, order: str, jobs: Sequence[Job]) -> str:
    """The manifest's first lines: what to do with it, and how the secrets that the pods of ``jobs`` refer to are made.

    From files, since a command line can be read by others.
    """
    said = f"paibook job {job.name!r}. First build and push the image, then: {order}"
    for one in jobs:
        if names := secret_names(one):
            making = f"kubectl create secret generic {one.slug} --from-env-file=FILE"
            said += f"\nSecrets ({', '.join(names)}), a line NAME=VALUE each: {making}"
    return said


def deadline(job: Job, options: ExportOptions) -> int:
    """Seconds by which a run may start late: the job's grace, or as long as is safe where missed runs are made up."""
    if job.missed == "skip" or not job.cron:
        return max(10, round(job.grace))  # below 10 s the controller may never start it
    now = options.now
    last = list(islice(fire_times(job.cron, job.timezone, now), MOST_MISSED))[-1]
    return max(60, min(LONGEST_DEADLINE, int((last - now).total_seconds()) // 60 * 60))


def pod_spec(job: Job, options: ExportOptions, words: list[str]) -> dict[str, Any]:
    """The pod that runs the job once by a command; each has a folder of its own for what it leaves."""
    container = {
        "name": "job",
        "image": need_image(job, options),
        "command": words,
        "env": _environment(job),
        "volumeMounts": [{"name": "runs", "mountPath": RUNS}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": _resources(job),
    }
    return {
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": f"{job.slug}-runs"}}],
    }


def _cron_job(job: Job, options: ExportOptions) -> dict[str, Any]:
    need_image(job, options)
    # Retries are paibook's own; a pod that the cluster takes away is replaced and does not count.
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": job.slug, "labels": {"app.kubernetes.io/managed-by": "paibook"}},
        "spec": {
            "schedule": portable(job.cron) if job.cron else "0 0 31 2 *",
            "suspend": not job.cron,
            "timeZone": job.timezone,
            "concurrencyPolicy": POLICIES[job.concurrency],
            "startingDeadlineSeconds": deadline(job, options),
            "successfulJobsHistoryLimit": job.keep or KEPT,
            "failedJobsHistoryLimit": job.keep or KEPT,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 0,
                    "podFailurePolicy": {"rules": [disrupted]},
                    "template": {"spec": pod_spec(job, options, command(job, [job]))},
                }
            },
        },
    }


def _claim(job: Job) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"{job.slug}-runs"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}},
    }


def _environment(job: Job) -> list[dict[str, Any]]:
    # Pods share no database: SQLite's locks do not hold on every kind of volume.
    found: list[dict[str, Any]] = [
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "PAIBOOK_JOBS", "value": f"{RUNS}/$(POD)"},
        {"name": "PAIBOOK_RUNS", "value": f"{RUNS}/$(POD)/cells"},
    ]
    for name in secret_names(job):
        found.append({"name": name, "valueFrom": {"secretKeyRef": {"name": job.slug, "key": name}}})
    return found


def _resources(job: Job) -> dict[str, Any]:
    requests: dict[str, str] = {"cpu": str(cores(job))}
    limits: dict[str, str] = {}
    if (size := memory(job)) is not None:
        requests["memory"] = limits["memory"] = f"{-(-size // 2**20)}Mi"
    if cards(job):
        limits["nvidia.com/gpu"] = str(cards(job))
    return {"requests": requests, **({"limits": limits} if limits else {})}
