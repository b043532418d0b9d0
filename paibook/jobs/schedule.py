"""When a job is due: a cron line in a time zone, or one moment."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from paibook.errors import PlanError
from paibook.jobs.suggestions import nearest

SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
FIELDS = "minute hour day-of-month month day-of-week"


def zone(name: str) -> ZoneInfo:
    """The time zone of that IANA name.

    Raises:
        PlanError: There is none; suggests the nearest.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise PlanError(
            f"unknown time zone {name!r}{nearest(name, available_timezones())}; "
            "names are as in the IANA database, such as Europe/Berlin or UTC"
        ) from error


def fire_times(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """The moments a cron line fires strictly after ``after``, in UTC.

    Daylight saving as in Debian's cron: a time that the clock skips fires once, right after the jump; a time that the
    clock shows twice fires once, unless the line has a wildcard hour or minute, which follows real time.

    Args:
        cron: Five fields, or a shorthand such as ``@daily``.
        timezone: IANA name in which the fields are read.
        after: Aware.

    Raises:
        PlanError: The line is malformed, or the time zone unknown.
    """
    # The one place that needs the library; a job without a cron line does without it.
    try:
        from cronsim import CronSim, CronSimError
    except ImportError as error:
        raise PlanError("cron lines need the extra `jobs`: pip install 'paibook[jobs]'") from error

    expression = SHORTHANDS.get(cron.strip(), cron.strip())
    if len(expression.split()) != 5:
        raise PlanError(
            f"cron {cron!r} has {len(expression.split())} fields; five are needed ({FIELDS}), "
            "such as '0 3 * * 1-5' for three in the morning on working days"
        )
    try:
        simulated = CronSim(expression, after.astimezone(zone(timezone)))
    except CronSimError as error:
        if _days_do_not_exist(expression):
            raise PlanError(
                f"cron {cron!r} never fires: none of its months has such a day; next fire times: none"
            ) from error
        raise PlanError(f"cron {cron!r}: {error} (the fields are {FIELDS})") from error
    for moment in simulated:
        yield moment.astimezone(UTC)


def check_cron(cron: str, timezone: str, now: datetime | None = None) -> list[datetime]:
    """The next five fire times of a cron line, in its own time zone.

    Raises:
        PlanError: It is malformed, or it never fires (such as 30 February).
    """
    times = preview(cron, timezone, now)
    if not times:
        raise PlanError(f"cron {cron!r} never fires: no day in the next 50 years matches it; next fire times: none")
    return times


def preview(cron: str, timezone: str, now: datetime | None = None, count: int = 5) -> list[datetime]:
    """The next ``count`` fire times, in the line's own time zone."""
    moments = islice(fire_times(cron, timezone, now or datetime.now(UTC)), count)
    return [moment.astimezone(zone(timezone)) for moment in moments]


def parse_moment(text: str, timezone: str) -> datetime:
    """A moment from ISO 8601 text, read in ``timezone`` where it names no offset; in UTC.

    Raises:
        PlanError: It is no moment.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise PlanError(f"at {text!r} is no moment; write it as 2026-01-31T03:00 or with an offset") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone(timezone))
    return moment.astimezone(UTC)


def _days_do_not_exist(expression: str) -> bool:
    """Whether a line is right but for days that its months do not have."""
    from cronsim import CronSim, CronSimError

    fields = expression.split()
    try:
        CronSim(" ".join([*fields[:2], "1", *fields[3:]]), datetime.now(UTC))
        CronSim(" ".join([*fields[:3], "*", fields[4]]), datetime.now(UTC))
    except CronSimError:
        return False
    return True
