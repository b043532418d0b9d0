"""Cron lines as numbers, and in other time zones: the same moments, or none."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest

from paibook.errors import PlanError
from paibook.jobs.exporters.cron_fields import in_zone, parse_cron, portable
from paibook.jobs.schedule import fire_times


@pytest.mark.parametrize(
    ("cron", "source", "target", "expected"),
    [
        ("30 3 * * 1-5", "UTC", "UTC", "30 3 * * 1-5"),
        ("30 3 * * 1-5", "Asia/Shanghai", "UTC", "30 19 * * 0,1,2,3,4"),
        ("15 4 * * *", "Asia/Kolkata", "UTC", "45 22 * * *"),
        ("0 9-17 * * *", "Asia/Tokyo", "UTC", "0 0,1,2,3,4,5,6,7,8 * * *"),
        ("*/10 * * * *", "Europe/Berlin", "UTC", "*/10 * * * *"),
        ("0 12 1 * *", "Asia/Shanghai", "UTC", "0 4 1 * *"),
        ("0 12 1 1 *", "Europe/Berlin", "UTC", "0 11 1 1 *"),
        ("0 3 1 * *", "Asia/Shanghai", "UTC", None),
        ("0 3 * * *", "Europe/Berlin", "UTC", None),
        ("0 3 * * *", "Europe/Berlin", "Europe/Paris", "0 3 * * *"),
        ("0,40 4 * * *", "Asia/Kolkata", "UTC", None),
        ("0 6,10 * * 1", "Asia/Shanghai", "UTC", None),
    ],
)
def test_a_line_fires_at_the_same_moments_elsewhere_or_is_none(cron, source, target, expected):
    assert in_zone(cron, source, target) == expected
    if expected is not None:
        now = datetime(2026, 3, 1, tzinfo=UTC)
        there = islice(fire_times(expected, target, now), 40)
        assert list(there) == list(islice(fire_times(cron, source, now), 40))


def test_fields_are_numbers():
    fields = parse_cron("*/30 9-17/4 1,15 jan-mar mon,7")
    assert (fields.minutes, fields.hours, fields.days) == ((0, 30), (9, 13, 17), (1, 15))
    assert (fields.months, fields.weekdays, fields.either) == ((1, 2, 3), (0, 1), True)
    assert parse_cron("@daily").line() == "0 0 * * *"
    assert parse_cron("0 0 * * 0-6").weekdays is None


def test_days_that_implementations_read_differently_are_refused():
    with pytest.raises(PlanError, match="write the days out"):
        portable("0 0 */2 * mon")
    assert portable("0 0 1-31/2 * mon") == "0 0 1-31/2 * mon"
