"""Telling somebody that a run has ended: a webhook, an e-mail."""

from __future__ import annotations

import json
import os
import smtplib
import urllib.error
import urllib.request
from email.message import EmailMessage

from paibook.errors import PaibookError
from paibook.jobs.records import DONE, FAILED, STOPPED, JobRun
from paibook.jobs.secret_references import is_reference, look_up

SECONDS = 10.0
EVENTS = {DONE: "success", FAILED: "failure", STOPPED: "stopped"}


def notify(run: JobRun) -> list[str]:
    """Tell whom the job names; returns what went wrong, since a run does not fail for its notification."""
    wanted = run.job.notify
    if EVENTS.get(run.state) not in wanted.on:
        return []
    problems = []
    try:
        if wanted.webhook:
            _post(look_up(wanted.webhook) if is_reference(wanted.webhook) else wanted.webhook, run)
    except (OSError, ValueError, urllib.error.URLError, PaibookError) as error:
        problems.append(f"the webhook was not told: {error}")
    try:
        if wanted.email:
            _mail(wanted.email, run)
    except (OSError, smtplib.SMTPException, ValueError) as error:
        problems.append(f"no e-mail was sent: {error}")
    return problems


def summary_of(run: JobRun) -> str:
    """One line on a run's end."""
    return f"job {run.job.name}: {run.state}" + (f": {run.error}" if run.error else "")


def _post(address: str, run: JobRun) -> None:
    told: dict[str, object] = {
        "job": run.job.name,
        "run": run.id,
        "state": run.state,
        "error": run.error,
        "traceback": run.traceback,
    }
    told |= {"started": run.started, "ended": run.ended, "attempt": run.attempt, "text": summary_of(run)}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps(told).encode(), headers)
    with urllib.request.urlopen(request, timeout=SECONDS):
        pass


def _mail(addresses: tuple[str, ...], run: JobRun) -> None:
    host, _, port = os.environ.get("PAIBOOK_SMTP", "localhost:25").partition(":")
    message = EmailMessage()
    message["Subject"] = summary_of(run)
    message["From"] = os.environ.get("PAIBOOK_SMTP_FROM", "paibook@localhost")
    message["To"] = ", ".join(addresses)
    message.set_content(f"{summary_of(run)}\n\nrun {run.id}\n\n{run.traceback}\n")
    with smtplib.SMTP(host, int(port or 25), timeout=SECONDS) as server:
        server.send_message(message)
