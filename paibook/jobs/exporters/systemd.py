"""systemd: a user's service, and a timer that knows time zones and runs what was missed.

The calendar is as in systemd.time(7), quoting as in systemd.syntax(7) and systemd.service(5).
"""

from __future__ import annotations

from datetime import UTC

from paibook.jobs.exporters.command import host_command, secret_names, spec_text
from paibook.jobs.exporters.cron_fields import WEEKDAYS, CronFields, parse_cron
from paibook.jobs.exporters.request import ExportOptions, need
from paibook.jobs.job import Job, slug_of
from paibook.jobs.schedule import parse_moment

# Which end of the predecessor starts the job.
TRIGGERS = {"success": ("OnSuccess",), "failure": ("OnFailure",), "any": ("OnSuccess", "OnFailure")}


def export(job: Job, options: ExportOptions) -> dict[str, str]:
    """``NAME.service``, ``NAME.timer``, the spec, and drop-ins for the services of the jobs that it comes after.

    Raises:
        PlanError: It is to catch up with every missed run, to run beside or in place of itself, or to come after
            several jobs.
    """
    why = "a timer runs once what was missed, however much that is"
    need(job.missed != "catch-up", job, options, "missed", why, "take --missed once")
    why = "systemd runs a service once at a time, and leaves out a time at which it still runs"
    need(job.concurrency == "forbid", job, options, "concurrency", why, "take --concurrency forbid")
    why = "systemd starts a job after one other, not after all of several"
    need(len(job.after) < 2, job, options, "after", why, "run it by `paibook job serve`")
    name = job.slug
    files = {f"{name}.service": _service(job, options), f"{name}.job.json": spec_text(job)}
    if job.cron or job.at:
        files[f"{name}.timer"] = _timer(job)
    for dependency in job.after if "after" not in options.without else ():
        lines = [f"{trigger}={name}.service" for trigger in TRIGGERS[dependency.when]]
        predecessor = slug_of(dependency.job)
        files[f"{predecessor}.service.d/then-{name}.conf"] = "\n".join(["[Unit]", *lines]) + "\n"
    return files


def calendar(fields: CronFields, timezone: str) -> list[str]:
    """``OnCalendar`` values; where a day fits by its date or by its weekday there are two, which add up."""
    time = f"{_list(fields.hours)}:{_list(fields.minutes)}:00 {timezone}"
    months, days = _list(fields.months), _list(fields.days)
    names = ",".join(WEEKDAYS[day].capitalize() for day in fields.weekdays or ())
    if fields.either:
        return [f"*-{months}-{days} {time}", f"{names} *-{months}-* {time}"]
    return [f"{names} *-{months}-{days} {time}".strip()]


def quoted(word: str) -> str:
    """A word of ``ExecStart``."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped.replace("%", "%%").replace("$", "$$")}"'


def _service(job: Job, options: ExportOptions) -> str:
    command = " ".join(map(quoted, host_command(job, options, f"{job.slug}.job.json")))
    lines = ["[Unit]", f"Description=paibook job {job.name.replace('%', '%%')}", "", "[Service]", "Type=oneshot"]
    if secret_names(job):
        path = str(options.folder / f"{job.slug}.env").replace("%", "%%")
        lines += [f"# Make it yourself, readable by you alone: {', '.join(secret_names(job))}, a line NAME=VALUE each."]
        lines += [f"EnvironmentFile={path}"]
    lines += [f"ExecStart={command}"]
    return (
        f"# cp {job.slug}.* ~/.config/systemd/user/ && systemctl --user daemon-reload\n"
        f"# systemctl --user enable --now {job.slug}.timer; loginctl enable-linger lets it run without a login.\n"
        + "\n".join(lines)
        + "\n"
    )


def _timer(job: Job) -> str:
    if job.at:
        values = [parse_moment(job.at, job.timezone).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")]
    else:
        values = calendar(parse_cron(job.cron), job.timezone)
    return "\n".join(
        [
            "[Unit]",
            f"Description=Times of the paibook job {job.name}",
            "",
            "[Timer]",
            *(f"OnCalendar={value}" for value in values),
            f"Persistent={'false' if job.missed == 'skip' else 'true'}",
            "AccuracySec=1s",
            "",
            "[Install]",
            "WantedBy=timers.target",
            "",
        ]
    )


def _list(values: tuple[int, ...] | None) -> str:
    return "*" if values is None else ",".join(f"{value:02d}" for value in values)
