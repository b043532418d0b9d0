"""Notebooks as jobs: the spec, the store, the process that runs one, and the scheduler that starts them."""

from __future__ import annotations

from paibook.jobs.job import Dependency, Job, Notification

__all__ = ["Dependency", "Job", "Notification"]
