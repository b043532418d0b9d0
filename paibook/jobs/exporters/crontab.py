"""cron: a line for ``crontab -e``, and the script that it starts."""

from __future__ import annotations

import shlex

from paibook.errors import PlanError
from paibook.jobs.exporters.command import run_script, spec_text
from paibook.jobs.exporters.cron_fields import in_zone, parse_cron, plain
from paibook.jobs.exporters.request import ExportOptions, need, need_cron, need_no_predecessors
from paibook.jobs.job import Job


def export(job: Job, options: ExportOptions) -> dict[str, str]:
    """The lines of ``NAME.crontab``, ``NAME.sh`` and the spec.

    The time zone is said by ``CRON_TZ``, which cronie reads; with a ``target_zone`` the line is converted to it.

    Raises:
        PlanError: It repeats in a way that cron cannot express, or makes up for missed runs.
    """
    need_cron(job, options, "cron")
    need_no_predecessors(job, options, "cron")
    why = f"cron runs nothing that it missed, and missed is {job.missed!r}"
    need(job.missed == "skip", job, options, "missed", why, "export it to systemd, which runs once what was missed")
    why = "cron cannot stop the run before"
    need(job.concurrency != "replace", job, options, "concurrency", why, "take --concurrency forbid")
    name = job.slug
    forbid = job.concurrency == "forbid"
    script = run_script(job, options, f"{name}.job.json", lock=forbid)
    return {
        f"{name}.crontab": _lines(job, options),
        f"{name}.sh": script,
        f"{name}.job.json": spec_text(job),
    }


def _lines(job: Job, options: ExportOptions) -> str:
    if not job.cron:
        return f"# {job.name}: no schedule\n"
    zone, line = options.target_zone, plain(job.cron)
    parse_cron(line)  # refuses what cron does not know
    if zone:
        moved = in_zone(job.cron, job.timezone, zone)
        why = f"no cron line in {zone} fires when {job.cron!r} does in {job.timezone}"
        need(moved is not None, job, options, "timezone", why, "leave --target-zone out where cron knows CRON_TZ")
        said, line = f"# Times are {zone}, as this host's clock.", moved or line
    else:
        said = (
            "# CRON_TZ is read by cronie (Fedora, RHEL, Arch). Debian's and Ubuntu's cron ignore it: there export\n"
            f"# with --target-zone and the host's time zone, or to systemd.\nCRON_TZ={job.timezone}"
        )
    return f"# paibook job {job.name!r}: add these lines with `crontab -e`\n{said}\n{line} {_command(job, options)}\n"


def _command(job: Job, options: ExportOptions) -> str:
    command = f"/bin/sh {shlex.quote(str(options.folder / f'{job.slug}.sh'))}"
    if "\n" in command:
        raise PlanError(f"the export folder {str(options.folder)!r} has a line break, which a crontab cannot hold")
    # cron takes % for the end of the command, and takes the backslash away before the shell sees it.
    return command.replace("%", r"\%")
