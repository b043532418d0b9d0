"""Cron lines taken apart: as numbers, and moved from one time zone to another where that is exact."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from paibook.errors import PlanError
from paibook.jobs.schedule import SHORTHANDS, fire_times, zone

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Lowest and highest value, and the names that stand for values, of the five fields. 7 is Sunday too.
FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: number for number, name in enumerate(MONTHS, 1)}),
    (0, 7, {name: number for number, name in enumerate(WEEKDAYS)}),
)
WEEKS_SEEN = 110  # two years: every change of the clocks that rules of today make
FIRES_COMPARED = 50


@dataclass(frozen=True)
class CronFields:
    """The values of a cron line; None where a field allows all.

    Attributes:
        minutes, hours, days, months, weekdays: Sorted; of weekdays 0 is Sunday.
        either: Whether a day fits that matches ``days`` or ``weekdays``, as cron has it where both are restricted
            and neither begins with ``*``; else both have to match.
        disputed: Whether implementations of cron differ on that: one of the two is such as ``*/2``.
    """

    minutes: tuple[int, ...] | None
    hours: tuple[int, ...] | None
    days: tuple[int, ...] | None
    months: tuple[int, ...] | None
    weekdays: tuple[int, ...] | None
    either: bool
    disputed: bool

    def line(self) -> str:
        """As a cron line."""
        fields = (self.minutes, self.hours, self.days, self.months, self.weekdays)
        return " ".join("*" if field is None else ",".join(map(str, field)) for field in fields)


def parse_cron(cron: str) -> CronFields:
    """Take a valid cron line apart.

    Raises:
        PlanError: It has ``L``, ``W`` or ``#``, which few schedulers know.
    """
    words = plain(cron).split()
    minutes, hours, days, months, weekdays = (
        _values(word, *bounds, cron) for word, bounds in zip(words, FIELDS, strict=True)
    )
    both = days is not None and weekdays is not None
    starred = words[2].startswith("*") or words[4].startswith("*")
    return CronFields(minutes, hours, days, months, weekdays, both and not starred, both and starred)


def plain(cron: str) -> str:
    """The line with five fields, a shorthand such as ``@daily`` written out."""
    return " ".join(SHORTHANDS.get(cron.strip(), cron).split())


def portable(cron: str) -> str:
    """The line, if every scheduler reads it alike.

    Raises:
        PlanError: It has ``L``, ``W`` or ``#``, or days on which implementations differ.
    """
    if parse_cron(cron).disputed:
        raise PlanError(
            f"cron {cron!r}: a step such as */2 in one of the day fields, with the other restricted, means 'both' to "
            "some schedulers and 'either' to others; write the days out, as in 1-31/2"
        )
    return plain(cron)


def in_zone(cron: str, source: str, target: str) -> str | None:
    """The line that fires at the same moments when read in another time zone; None where there is no such line."""
    if source == target:
        return portable(cron)
    fields = parse_cron(portable(cron))
    offsets = _offsets(cron, source, target)
    if _every_hour(fields) and all(offset % 60 == 0 for offset in offsets):
        return plain(cron)
    if len(offsets) != 1:
        return None
    moved = _shifted(fields, offsets.pop())
    if moved is None:
        return None
    line = moved.line()
    now = datetime.now(UTC)
    before, after = (
        list(islice(fire_times(text, name, now), FIRES_COMPARED)) for text, name in ((cron, source), (line, target))
    )
    return line if before == after else None


def _values(word: str, low: int, high: int, names: dict[str, int], cron: str) -> tuple[int, ...] | None:
    found: set[int] = set()
    for part in word.lower().split(","):
        span, _, step = part.partition("/")
        first, dash, last = ("0" if low == 0 else "1", "-", str(high)) if span == "*" else span.partition("-")
        if high == 7 and span == "*":
            last = "6"
        try:
            begin = names[first] if first in names else int(first)
            end = (names[last] if last in names else int(last)) if dash else (high if step else begin)
            found.update(range(begin, end + 1, int(step or 1)))
        except ValueError as error:
            raise PlanError(f"cron {cron!r}: only paibook and few others know {word!r}; write the days out") from error
    if high == 7:
        found = {number % 7 for number in found}
    every = set(range(low, 7 if high == 7 else high + 1))
    return None if found == every else tuple(sorted(found))


def _every_hour(fields: CronFields) -> bool:
    return all(field is None for field in (fields.hours, fields.days, fields.months, fields.weekdays))


def _offsets(cron: str, source: str, target: str) -> set[int]:
    """By how many minutes the target's clock is ahead of the source's, at the line's fire times."""
    found = set()
    now = datetime.now(UTC)
    for week in range(WEEKS_SEEN):
        moment = next(fire_times(cron, source, now + timedelta(weeks=week)), None)
        if moment is not None:
            ahead = [moment.astimezone(zone(name)).utcoffset() or timedelta() for name in (source, target)]
            found.add(round((ahead[1] - ahead[0]).total_seconds() / 60))
    return found


def _shifted(fields: CronFields, offset: int) -> CronFields | None:
    """The fields ``offset`` minutes later, where they are still one line."""
    minutes, hours = (range(60) if v is None else v for v in (fields.minutes, fields.hours))
    moved = {divmod(hour * 60 + minute + offset, 24 * 60) for hour in hours for minute in minutes}
    carries = {carry for carry, _ in moved}
    new_hours, new_minutes = ({pair[index] for pair in (divmod(rest, 60) for _, rest in moved)} for index in (0, 1))
    if len(new_hours) * len(new_minutes) != len({rest for _, rest in moved}):
        return None
    weekdays = fields.weekdays
    if carries != {0} and (fields.days, fields.months, weekdays) != (None, None, None):
        if len(carries) != 1 or fields.days is not None or fields.months is not None or weekdays is None:
            return None  # the dates of a month do not move as one
        weekdays = tuple(sorted((day + next(iter(carries))) % 7 for day in weekdays))
    kept_minutes = None if len(new_minutes) == 60 else tuple(sorted(new_minutes))
    kept_hours = None if len(new_hours) == 24 else tuple(sorted(new_hours))
    return CronFields(kept_minutes, kept_hours, fields.days, fields.months, weekdays, fields.either, False)
