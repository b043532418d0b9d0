"""``paibook job export`` and ``import`` on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paibook.jobs.exporters.archive import import_job, missing_data
from paibook.jobs.exporters.registry import TARGETS, export_job, write_files
from paibook.jobs.exporters.request import LEAVABLE, ExportOptions
from paibook.jobs.job import Job


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of an export."""
    add = parser.add_argument
    add("--to", default="", metavar="TARGET", help=f"{', '.join(TARGETS)} (default: the job as JSON)")
    add("-o", "--folder", default=".", metavar="FOLDER", help="where the files are written (default: here)")
    add("--without", action="append", default=[], metavar="FIELD", help=f"leave out: of {', '.join(LEAVABLE)}")
    add("--image", default="", metavar="NAME", help="the container image, where the target needs one")
    add("--target-zone", default="", metavar="NAME", help="the time zone of the target's clock")
    add("--overwrite", action="store_true", help="replace files that are there")


def export_files(job: Job, options: Any, known: Sequence[Job]) -> list[Path]:
    """Write the files of an export; returns their paths.

    Args:
        known: The jobs that it may come after.

    Raises:
        PlanError: The target cannot express the job.
        DataError: A file is there already or cannot be written.
    """
    folder = Path(options.folder).expanduser().absolute()
    without = frozenset(word for text in options.without for word in text.split(","))
    jobs = {one.name: one for one in known}
    wanted = ExportOptions(folder, without, options.image, options.target_zone, known=jobs)
    return write_files(export_job(job, options.to, wanted), folder, options.overwrite)


def import_archive(options: Any) -> tuple[Job, list[str]]:
    """Unpack an archive; returns its job, and what its data lacks here.

    Raises:
        PlanError, DataError: As ``import_job``.
    """
    job = import_job(Path(options.archive), Path(options.folder))
    return job, missing_data(job)
