"""The summary of a MapReduce run that has ended: one line, and what lies behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from paibook_magics.panel import badges, counters_text
from paibook_magics.panel_style import STYLE
from paibook_magics.sizes import counted, short_bytes, short_count, short_time

LONGEST = 60  # characters of a cell in text
TEXTS = ("stage", "output", "key", "where", "")  # columns of words, not numbers

Summary = Mapping[str, Any]
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # title, columns, rows


def summary_bundle(summary: Summary, hint: str = "") -> dict[str, str]:
    """A run's summary as a MIME bundle: a line that opens into tables, with counters and bad records below it.

    Args:
        summary: ``Run.summary``.
        hint: What else there is to see of the run, behind the line.
    """
    return {"text/plain": summary_text(summary), "text/html": _html(summary, hint)}


def summary_line(summary: Summary) -> str:
    """For example ``map 8 tasks · 1.2M records, 45 MB · reduce 4 tasks · 3.2 s · 375k records/s · 14 MB/s``."""
    stages, seconds = summary["stages"], summary["seconds"]
    parts = [f"{stage['name']} {counted(stage['tasks'], 'task')}" for stage in stages]
    records, size = (stages[0]["records_in"], stages[0]["bytes_in"]) if stages else (0, 0)
    if stages:
        parts.insert(1, f"{counted(records, 'record')}, {short_bytes(size)}" if size else counted(records, "record"))
    parts.append(short_time(seconds))
    if seconds > 0 and records:
        parts.append(f"{short_count(records / seconds)} records/s")
    if seconds > 0 and size:
        parts.append(f"{short_bytes(size / seconds)}/s")
    return " · ".join(parts)


def summary_text(summary: Summary, with_tables: bool = False) -> str:
    """The line, counters and bad records; on request also the stages, outputs and largest keys as aligned tables."""
    lines = [summary_line(summary)]
    if summary.get("counters"):
        lines.append(f"counters: {counters_text(summary['counters'])}")
    if bad := _bad(summary):
        lines.append(bad)
    for title, columns, rows in _tables(summary) if with_tables else ():
        lines += ["", f"{title}:", *_aligned(columns, rows)]
    return "\n".join(lines)


def _bad(summary: Summary) -> str:
    bad = summary.get("bad")
    if not bad or not bad["records"]:
        return ""
    return f"{counted(bad['records'], 'bad record')} skipped; see {bad['file']}"


def _tables(summary: Summary) -> list[Table]:
    tables = [_stages(summary["stages"])]
    if outputs := summary.get("outputs"):
        rows = [(name or "main", *_output(output)) for name, output in outputs.items()]
        tables.append(("outputs", ("output", "records", "bytes", "where"), rows))
    if largest := summary.get("largest_keys"):
        keys = [(key["key"], f"{key['values']:,}", short_bytes(key["bytes"])) for key in largest]
        tables.append(("largest keys", ("key", "values", "bytes"), keys))
    return tables


def _stages(stages: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("stage", "tasks", "records in", "records out", "bytes in", "bytes out", "time", "")
    rows = [
        (
            stage["name"],
            f"{stage['tasks']:,}",
            f"{stage['records_in']:,}",
            f"{stage['records_out']:,}",
            short_bytes(stage["bytes_in"]),
            short_bytes(stage["bytes_out"]),
            short_time(stage["seconds"]),
            ", ".join(text for _kind, text in badges(stage)),
        )
        for stage in stages
    ]
    return "stages", columns, rows


def _output(output: Mapping[str, Any]) -> tuple[str, str, str]:
    size = output.get("bytes")
    return f"{output['rows']:,}", short_bytes(size) if size else "", str(output.get("target") or "the notebook")


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cut = [[cell if len(cell) <= LONGEST else cell[: LONGEST - 1] + "…" for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    return ["  ".join(map(_padded, columns, row, widths)).rstrip() for row in cut]


def _padded(column: str, cell: str, width: int) -> str:
    return cell.ljust(width) if column in TEXTS else cell.rjust(width)


def _html(summary: Summary, hint: str) -> str:
    tables = "".join(_table(table) for table in _tables(summary))
    tables += f'<div class="pai-note">{escape(hint)}</div>' if hint else ""
    counters = counters_text(summary.get("counters") or {})
    below = f'<div class="pai-counters">{escape(counters)}</div>' if counters else ""
    if bad := _bad(summary):
        below += f'<div class="pai-bad">{escape(bad)}</div>'
    line = f"<summary>{escape(summary_line(summary))}</summary>"
    return f'{STYLE}<div class="pai-run"><details>{line}{tables}</details>{below}</div>'


def _table(table: Table) -> str:
    title, columns, rows = table
    head = "".join(f"<th {_class(column)}>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, columns, row))}</tr>" for row in rows)
    return (
        f'<h4>{escape(title)}</h4><table class="pai-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _cell(column: str, text: str) -> str:
    whole = f' title="{escape(text)}"' if len(text) > LONGEST else ""
    return f"<td {_class(column)}{whole}>{escape(text)}</td>"


def _class(column: str) -> str:
    return 'class="pai-text"' if column in TEXTS else 'class="pai-number"'
