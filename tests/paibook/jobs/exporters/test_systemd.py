"""systemd: units that systemd-analyze accepts, whose calendar fires when the job is due."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice

import pytest

from paibook.errors import PlanError
from paibook.jobs import Dependency
from paibook.jobs.exporters import export_job, write_files
from paibook.jobs.exporters.cron_fields import parse_cron
from paibook.jobs.exporters.systemd import calendar, quoted
from paibook.jobs.schedule import fire_times

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@needs_systemd
def test_systemd_accepts_the_units(job, options):
    options = replace(options, python=sys.executable)
    write_files(export_job(job, "systemd", options), options.folder)
    units = [options.folder / f"nightly-training.{kind}" for kind in ("service", "timer")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    ours = [line for line in done.stderr.splitlines() if "nightly-training" in line]
    assert ours == []


@needs_systemd
@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("30 3 * * 1-5", "Europe/Berlin"),
        ("*/20 * * * *", "UTC"),
        ("0 0 13 * 5", "America/New_York"),
        ("15 6,18 */2 * *", "Asia/Kolkata"),
        ("0 12 1-7 jan-mar sun", "UTC"),
        ("5 4 */2 * mon", "UTC"),
        ("@weekly", "Australia/Sydney"),
    ],
)
def test_the_calendar_fires_when_cron_does(cron, zone):
    values = calendar(parse_cron(cron), zone)
    done = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=8", *values],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = re.findall(r"(?:Next elapse|\(in UTC\)|Iter\. *#\d+): \w+ (\d\S+ \S+) UTC", done.stdout)
    times = sorted({datetime.fromisoformat(text).replace(tzinfo=UTC) for text in found})[:8]
    assert times == list(islice(fire_times(cron, zone, datetime.now(UTC)), len(times)))
    assert len(times) == 8


def test_words_are_quoted_as_systemd_reads_them():
    assert quoted('a "b" $c 50% \\') == '"a \\"b\\" $$c 50%% \\\\"'


def test_one_moment_is_a_date(job, options):
    timer = export_job(replace(job, cron="", at="2030-06-01T03:00", timezone="Europe/Berlin"), "systemd", options)
    assert "OnCalendar=2030-06-01 01:00:00 UTC" in timer["nightly-training.timer"]


def test_a_predecessor_starts_it(job, options):
    files = export_job(replace(job, cron="", after=(Dependency("Load data", "any"),)), "systemd", options)
    assert "nightly-training.timer" not in files
    drop_in = files["load-data.service.d/then-nightly-training.conf"]
    assert drop_in.splitlines() == [
        "[Unit]",
        "OnSuccess=nightly-training.service",
        "OnFailure=nightly-training.service",
    ]


def test_skipping_is_not_persistent(job, options):
    assert "Persistent=true" in export_job(job, "systemd", options)["nightly-training.timer"]
    files = export_job(replace(job, missed="skip"), "systemd", options)
    assert "Persistent=false" in files["nightly-training.timer"]


@pytest.mark.parametrize(
    "change",
    [{"missed": "catch-up"}, {"concurrency": "allow"}, {"after": (Dependency("a"), Dependency("b"))}],
)
def test_what_systemd_cannot_do_is_refused(change, job, options):
    with pytest.raises(PlanError, match=f"--without {next(iter(change))}"):
        export_job(replace(job, **change), "systemd", options)
