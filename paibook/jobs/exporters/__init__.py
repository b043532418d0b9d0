"""Jobs for other schedulers: one spec to crontab, systemd, Kubernetes, Airflow and others.

Each module makes the files of one target by one function, ``export``. Every target but ``script`` starts ``paibook job
run`` with the job's spec: retries with back-off, time limit, outputs and notification are paibook's own, the same
everywhere, and the target says when. What a target cannot express is refused, unless the user leaves it out by name.
"""

from __future__ import annotations

from paibook.jobs.exporters.registry import TARGETS, export_job, write_files
from paibook.jobs.exporters.request import ExportOptions

__all__ = ["TARGETS", "ExportOptions", "export_job", "write_files"]
