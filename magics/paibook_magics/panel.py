"""The panel under a running cell: each stage a row with its bar and numbers, as HTML and as aligned text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from paibook_magics.panel_style import STYLE
from paibook_magics.sizes import counted, short_bytes, short_count, short_time
from paibook_magics.stage_meters import Reading

BAR = 20  # characters


def panel(
    readings: Sequence[Reading], counters: Mapping[str, int], note: str = "", drawing: str = ""
) -> dict[str, str]:
    """A run as it stands, as a MIME bundle.

    Args:
        readings: Of its stages.
        counters: The program's own.
        note: A last line, such as how it ended.
        drawing: HTML that stands under the stages.
    """
    return {"text/plain": _text(readings, counters, note), "text/html": _html(readings, counters, note, drawing)}


def counters_text(counters: Mapping[str, int]) -> str:
    """Counters in one line: ``bad_rows 12 · words 1,234``."""
    return " · ".join(f"{name} {value:,}" for name, value in counters.items())


def badges(numbers: Mapping[str, float]) -> list[tuple[str, str]]:
    """What went out of the ordinary in a stage: the kind of each thing, and how often it happened.

    Args:
        numbers: ``retried``, ``backups``, ``spills`` and ``spilled_bytes``, as far as there are any.
    """
    found = []
    if numbers.get("backups"):
        found.append(("backups", counted(numbers["backups"], "backup")))
    if numbers.get("retried"):
        found.append(("retried", f"{short_count(numbers['retried'])} retried"))
    if numbers.get("spilled_bytes"):
        spills = f"{counted(numbers['spills'], 'spill')}, " if numbers.get("spills") else "spilled "
        found.append(("spills", spills + short_bytes(numbers["spilled_bytes"])))
    return found


def _cells(reading: Reading) -> list[str]:
    """A stage's numbers: how far, records, bytes, rate, time."""
    records, size = reading.detail("records"), reading.detail("bytes")
    return [
        _how_far(reading),
        f"{short_count(records)} records" if records else "",
        short_bytes(size) if size else "",
        _rate(reading),
        _time(reading),
    ]


def _how_far(reading: Reading) -> str:
    done = f"{reading.done:,g}"
    return f"{done}/{reading.total:,g} {reading.unit}" if reading.total is not None else f"{done} {reading.unit}"


def _rate(reading: Reading) -> str:
    if (rate := reading.rate("records")) is not None:
        return f"{short_count(rate)} records/s"
    if reading.total is None and (rate := reading.rate(reading.unit)) is not None:
        return f"{short_count(rate)} {reading.unit}/s"
    return ""


def _time(reading: Reading) -> str:
    if reading.left is not None:
        return f"ETA {short_time(reading.left)}"
    return short_time(reading.seconds) if reading.seconds >= 0.05 else ""


def _text(readings: Sequence[Reading], counters: Mapping[str, int], note: str) -> str:
    rows = [_cells(reading) for reading in readings]
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    first = max((len(reading.name) for reading in readings), default=0)
    lines = []
    for reading, row in zip(readings, rows, strict=True):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True) if width]
        extra = ", ".join(text for _kind, text in badges(reading.details))
        lines.append("  ".join([reading.name.ljust(first), _bar(reading), *cells, extra]).rstrip())
    if counters:
        lines.append(f"counters: {counters_text(counters)}")
    return "\n".join([*lines, *([note] if note else [])])


def _bar(reading: Reading) -> str:
    if not reading.total:
        return " " * BAR
    full = int(BAR * _share(reading.done, reading.total))
    return "█" * full + "░" * (BAR - full)


def _html(readings: Sequence[Reading], counters: Mapping[str, int], note: str, drawing: str) -> str:
    rows = [_cells(reading) for reading in readings]
    used = [any(column) for column in zip(*rows, strict=True)]
    body = "".join(_row(reading, row, used) for reading, row in zip(readings, rows, strict=True))
    below = _line("pai-counters", counters_text(counters)) + _line("pai-note", note)
    return f'{STYLE}<div class="pai-run"><table class="pai-stages"><tbody>{body}</tbody></table>{drawing}{below}</div>'


def _row(reading: Reading, row: Sequence[str], used: Sequence[bool]) -> str:
    cells = "".join(
        f'<td class="pai-number">{escape(cell)}</td>' for cell, is_used in zip(row, used, strict=True) if is_used
    )
    return (
        f'<tr class="pai-{reading.state}"><th scope="row">{escape(reading.name)}</th>'
        f'<td class="pai-meter">{_meter(reading)}</td>{cells}<td class="pai-badges">{_badges(reading)}</td></tr>'
    )


def _meter(reading: Reading) -> str:
    if not reading.total:
        return ""
    done = 100 * _share(reading.done, reading.total)
    begun = 100 * _share(reading.done + reading.detail("running"), reading.total)
    return (
        f'<div class="pai-bar" role="progressbar" aria-valuenow="{done:.0f}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-label="{escape(reading.name)}"><div class="pai-begun" style="width:{begun:.1f}%"></div>'
        f'<div class="pai-full" style="width:{done:.1f}%"></div></div>'
    )


def _badges(reading: Reading) -> str:
    return " ".join(
        f'<span class="pai-badge pai-{kind}">{escape(text)}</span>' for kind, text in badges(reading.details)
    )


def _line(kind: str, text: str) -> str:
    return f'<div class="{kind}">{escape(text)}</div>' if text else ""


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole))
