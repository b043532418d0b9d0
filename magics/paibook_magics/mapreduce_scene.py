"""A MapReduce run as it stands, drawn: splits, map tasks, the shuffle as it fills, and the reduce tasks under it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from paibook_magics.panel import badges, counters_text
from paibook_magics.panel_style import STYLE
from paibook_magics.sizes import counted, short_bytes, short_count

Picture = Mapping[str, Any]
Group = Mapping[str, Any]

WIDTH, ROW, TOP = 680, 22, 34  # units of the drawing
NAME, TASK, SHUFFLE = 150, 156, 346  # where a split's name ends, where its task's box and the shuffle begin
REDUCER = 40  # the height of a reduce task's box
MOST_SHUFFLES = 3  # drawn of a run of many stages: the latest
NAMED = 24  # characters of a split's name
SHOWN_IN_CELL = 34  # the width of a cell of the shuffle that has room for its number
GLYPHS = {"waiting": "·", "queued": "…", "running": "▶", "done": "✓"}
COLORS = {
    "waiting": "var(--pai-muted)",
    "queued": "var(--pai-muted)",
    "running": "var(--pai-brand)",
    "done": "var(--pai-good)",
}
SAID = {"waiting": "waiting", "queued": "given to the cluster", "running": "at work", "done": "done"}
LEGEND = "✓ done · ▶ at work · … given to the cluster · ↻1 done again: its worker died · +1 backup of a slow task"
SUMMED = ("records_in", "records_out", "bytes_in", "bytes_out", "spills", "spilled_bytes", "retried", "backups")


def mapreduce_bundle(picture: Picture, note: str = "") -> dict[str, str]:
    """As a MIME bundle: a drawing and a table as HTML, and the same numbers as text.

    Args:
        picture: ``Progress.picture`` of a ``%%pai_mapreduce`` run.
        note: A last line.
    """
    below = f'<div class="pai-note">{escape(note)}</div>' if note else ""
    counters = counters_text(picture["counters"])
    counted_ = f'<div class="pai-counters">{escape(counters)}</div>' if counters else ""
    body = _table(picture) + mapreduce_drawing(picture) + counted_ + below
    html = f'{STYLE}<div class="pai-run">{body}</div>'
    return {"text/plain": mapreduce_text(picture, note), "text/html": html}


def mapreduce_text(picture: Picture, note: str = "") -> str:
    """A line for each stage and for each shuffle."""
    lines = []
    for stage in picture["stages"]:
        lines.append(f"{stage['name']}: {_told(stage)}")
        if shuffle := stage["shuffle"]:
            lines.append(f"  shuffle: {_shuffle_told(shuffle)}")
    if picture["counters"]:
        lines.append(f"counters: {counters_text(picture['counters'])}")
    return "\n".join([*lines, *filter(None, [note])])


def mapreduce_drawing(picture: Picture) -> str:
    """The drawing alone, as SVG; empty where there is nothing to draw yet."""
    stages = picture["stages"]
    sections = [
        (stage, stages[place + 1] if place + 1 < len(stages) else None)
        for place, stage in enumerate(stages)
        if stage["groups"] and (stage["shuffle"] or place == 0)
    ]
    parts, y = [], 0.0
    for stage, following in sections[-MOST_SHUFFLES:]:
        drawn, height = _section(stage, following, y)
        parts.append(drawn)
        y += height
    if not parts:
        return ""
    label = "; ".join(f"{stage['name']}: {_told(stage)}" for stage in stages)
    drawing = (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {y:.0f}" '
        f'style="width:100%;max-width:{WIDTH}px;display:block;font-size:11px;margin-top:4px">{"".join(parts)}</svg>'
    )
    has_begun = any(any(_sums(stage)[name] for name in ("queued", "running", "done")) for stage in stages)
    return drawing + (f'<div class="pai-note">{LEGEND}</div>' if has_begun else "")


# The numbers of stages and shuffles.


def _sums(stage: Mapping[str, Any]) -> dict[str, int]:
    return {name: sum(group.get(name, 0) for group in stage["groups"]) for name in (*SUMMED, *GLYPHS)}


def _told(stage: Mapping[str, Any]) -> str:
    if not stage["tasks"]:
        return "not begun"
    sums = _sums(stage)
    parts = [f"{sums['done']:,}/{stage['tasks']:,} tasks"]
    if sums["running"]:
        parts.append(f"{sums['running']:,} at work")
    if sums["records_in"]:
        parts.append(f"{counted(sums['records_in'], 'record')} in, {short_count(sums['records_out'])} out")
    return ", ".join([*parts, *(text for _kind, text in badges(sums))])


def _shuffle_told(shuffle: Mapping[str, Any]) -> str:
    columns = [sum(row[place] for row in shuffle["records"]) for place in range(len(shuffle["columns"]))]
    total, size = sum(columns), sum(map(sum, shuffle["bytes"]))
    told = f"{counted(total, 'value')}, {short_bytes(size)} in {counted(shuffle['buckets'], 'partition')}"
    if not total:
        return f"nothing yet in {counted(shuffle['buckets'], 'partition')}"
    fullest = max(range(len(columns)), key=columns.__getitem__)
    share = 100 * columns[fullest] / total
    return f"{told}; the most, {share:.0f} %, in {_span('partition', *shuffle['columns'][fullest])}"


def _table(picture: Picture) -> str:
    columns = ("stage", "tasks", "at work", "records in", "records out", "bytes in", "bytes out", "")
    rows = []
    for stage in picture["stages"]:
        sums = _sums(stage)
        rows.append(
            (
                stage["name"],
                f"{sums['done']:,}/{stage['tasks']:,}" if stage["tasks"] else "",
                f"{sums['running']:,}" if sums["running"] else "",
                *(short_count(sums[name]) if sums[name] else "" for name in ("records_in", "records_out")),
                *(short_bytes(sums[name]) if sums[name] else "" for name in ("bytes_in", "bytes_out")),
                ", ".join(text for _kind, text in badges(sums)),
            )
        )
    used = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    head = "".join(f'<th class="{_kind(place)}">{escape(columns[place])}</th>' for place in used)
    body = "".join(
        "<tr>" + "".join(f'<td class="{_kind(place)}">{escape(row[place])}</td>' for place in used) + "</tr>"
        for row in rows
    )
    return f'<table class="pai-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _kind(place: int) -> str:
    return "pai-text" if place in (0, 7) else "pai-number"


# The drawing.


def _section(stage: Mapping[str, Any], following: Mapping[str, Any] | None, top: float) -> tuple[str, float]:
    """A stage's tasks, the shuffle they fill, and the reduce tasks that take it; and its height."""
    groups, shuffle = stage["groups"], stage["shuffle"]
    last_row = top + TOP + ROW * len(groups)
    head = "splits" if stage["name"] == "map" else "partitions"
    title = f"shuffle: {_shuffle_told(shuffle).partition(';')[0]}" if shuffle else ""
    parts = [
        _text(0, top + 11, head, "var(--pai-muted)"),
        _text(TASK, top + 11, f"{stage['name']} tasks", "var(--pai-muted)"),
        _text(SHUFFLE, top + 11, title, "var(--pai-muted)"),
    ]
    parts += [_row(stage["name"], group, top + TOP + ROW * row) for row, group in enumerate(groups)]
    if not shuffle:
        return "".join(parts), last_row - top + 8
    width = (WIDTH - SHUFFLE) / len(shuffle["columns"])
    parts += _matrix(stage["name"], groups, shuffle, top + TOP, width)
    parts += _reducers(following, shuffle, last_row + 6, width)
    return "".join(parts), last_row + 6 + REDUCER + 12 - top


def _row(name: str, group: Group, y: float) -> str:
    """A split, or the partitions that a task takes, and the task's box."""
    source, part = group["label"]
    taken = group["buckets"]
    left = _span("partition", *taken) if taken else _split_name(group)
    number = _span(name, group["first"], group["last"])
    said = ", ".join(filter(None, [number, source, part, _state_told(group), _numbers_told(group)]))
    arrow = f'<path d="M{NAME - 4} {y + 9:.0f} h6" stroke="var(--pai-muted)" fill="none"/>' if left else ""
    return (
        f"<g><title>{escape(said)}</title>{_text(0, y + 13, left, 'var(--pai-ink)')}{arrow}"
        f"{_box(TASK, y, SHUFFLE - TASK - 12, ROW - 4, group)}"
        f"{_text(TASK + 6, y + 13, f'{_glyph(group)} {number}', 'var(--pai-ink)')}"
        f"{_text(SHUFFLE - 18, y + 13, _badge(group) or _count(group), 'var(--pai-muted)', 'end')}</g>"
    )


def _box(x: float, y: float, width: float, height: float, group: Group) -> str:
    """A box that is filled as far as its tasks are done, and fainter as far as they are at work."""
    total = group["last"] - group["first"] + 1
    done, begun = group.get("done", 0) / total, (group.get("done", 0) + group.get("running", 0)) / total
    color = COLORS[_state(group)]
    dashes = ' stroke-dasharray="3 2"' if _state(group) in ("waiting", "queued") else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.0f}" width="{width * begun:.1f}" height="{height}" rx="3" fill="var(--pai-brand)" '
        f'opacity="0.22"/><rect x="{x:.1f}" y="{y:.0f}" width="{width * done:.1f}" height="{height}" rx="3" '
        f'fill="var(--pai-good)" opacity="0.22"/><rect x="{x:.1f}" y="{y:.0f}" width="{width:.1f}" height="{height}" '
        f'rx="3" fill="none" stroke="{color}"{dashes}/>'
    )


def _matrix(name: str, groups: Sequence[Group], shuffle: Mapping[str, Any], top: float, width: float) -> list[str]:
    """A cell for each group of tasks and each partition, the darker the more values lie in it."""
    most = max((count for row in shuffle["records"] for count in row), default=0)
    every = max(1, math.ceil((8 + 6 * len(str(shuffle["buckets"]))) / width))
    parts = [
        _text(SHUFFLE + width * (place + 0.5), top - 7, str(span[0]), "var(--pai-muted)", "middle")
        for place, span in enumerate(shuffle["columns"])
        if place % every == 0
    ]
    for row, (records, sizes) in enumerate(zip(shuffle["records"], shuffle["bytes"], strict=True)):
        task = _span(name, groups[row]["first"], groups[row]["last"])
        for place, (count, size) in enumerate(zip(records, sizes, strict=True)):
            x, y = SHUFFLE + width * place, top + ROW * row
            where = f"{task} to {_span('partition', *shuffle['columns'][place])}"
            said = f"{where}: {counted(count, 'value')}, {short_bytes(size)}"
            shade = f"{0.12 + 0.5 * math.sqrt(count / most):.2f}" if count else "0"
            number = ""
            if count and width >= SHOWN_IN_CELL:
                number = _text(x + width / 2, y + 13, short_count(count), "var(--pai-ink)", "middle")
            parts.append(
                f'<g><title>{escape(said)}</title><rect x="{x + 1:.1f}" y="{y:.0f}" width="{width - 2:.1f}" '
                f'height="{ROW - 4}" fill="var(--pai-track)"/><rect x="{x + 1:.1f}" y="{y:.0f}" '
                f'width="{width - 2:.1f}" height="{ROW - 4}" fill="var(--pai-brand)" opacity="{shade}"/>{number}</g>'
            )
    return parts


def _reducers(stage: Mapping[str, Any] | None, shuffle: Mapping[str, Any], y: float, width: float) -> list[str]:
    """The tasks of the stage that reads the shuffle, each under the partitions that it takes."""
    if stage is None:
        return []
    label = _text(SHUFFLE - 12, y + 16, f"{stage['name']} tasks", "var(--pai-muted)", "end")
    if not stage["groups"]:
        waits = _text(SHUFFLE + 6, y + 16, "begin when all of these are done", "var(--pai-muted)")
        box = (
            f'<rect x="{SHUFFLE + 1}" y="{y:.0f}" width="{WIDTH - SHUFFLE - 2}" height="{REDUCER - 14}" rx="3" '
            'fill="none" stroke="var(--pai-muted)" stroke-dasharray="3 2"/>'
        )
        return [label, box, waits]
    parts = [label]
    for place, group in enumerate(stage["groups"]):
        x, wide = _place_under(group, place, len(stage["groups"]), shuffle, width)
        number = _span(stage["name"], group["first"], group["last"])
        taken = f"takes {_span('partition', *group['buckets'])}" if group["buckets"] else ""
        said = ", ".join(filter(None, [number, taken, _state_told(group), _numbers_told(group)]))
        short = f"{_glyph(group)} {_short_span(group['first'], group['last'])}"
        below = _badge(group) or _count(group)
        middle = x + wide / 2
        parts.append(
            f"<g><title>{escape(said)}</title>{_box(x + 1, y, wide - 2, REDUCER - 14, group)}"
            f"{_text(middle, y + 17, short if wide >= 24 else _glyph(group), 'var(--pai-ink)', 'middle')}"
            f"{_text(middle, y + REDUCER - 2, below if wide >= 34 else '', 'var(--pai-muted)', 'middle')}</g>"
        )
    return parts


def _place_under(group: Group, place: int, count: int, shuffle: Mapping[str, Any], width: float) -> tuple[float, float]:
    """Where a reduce task's box begins, and its width."""
    if not group["buckets"]:
        whole = WIDTH - SHUFFLE
        return SHUFFLE + whole * place / count, whole / count
    # Partitions may be drawn several in a column.
    scale = width * len(shuffle["columns"]) / max(1, shuffle["buckets"])
    first, last = group["buckets"]
    return SHUFFLE + scale * first, scale * (last + 1 - first)


# Words.


def _state(group: Group) -> str:
    for state in ("running", "queued", "waiting"):
        if group.get(state):
            return state
    return "done"


def _glyph(group: Group) -> str:
    return GLYPHS[_state(group)]


def _badge(group: Group) -> str:
    found = [f"{sign}{group[name]}" for sign, name in (("↻", "retried"), ("+", "backups")) if group.get(name)]
    if group.get("spilled_bytes"):
        found.append(f"spilled {short_bytes(group['spilled_bytes'])}")
    return " ".join(found)


def _count(group: Group) -> str:
    return short_count(group["records_in"]) if group.get("records_in") else ""


def _state_told(group: Group) -> str:
    if group["first"] == group["last"]:
        return SAID[_state(group)]
    return ", ".join(f"{group[state]:,} {SAID[state]}" for state in GLYPHS if group.get(state))


def _numbers_told(group: Group) -> str:
    parts = []
    if group.get("records_in"):
        parts.append(f"{counted(group['records_in'], 'record')} in")
    if group.get("records_out"):
        parts.append(f"{short_count(group['records_out'])} out")
    return ", ".join([*parts, *(text for _kind, text in badges(group))])


def _span(name: str, first: int, last: int) -> str:
    return f"{name} {first}" if first == last else f"{name} {first} to {last}"


def _short_span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"


def _split_name(group: Group) -> str:
    source, part = group["label"]
    if group["last"] > group["first"]:
        more = f" +{group['last'] - group['first']}"
        return f"{_short(source, NAMED - len(more))}{more}"
    whole = ", ".join(filter(None, [source, part]))
    return whole if len(whole) <= NAMED else _short(source, NAMED)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(x: float, y: float, text: str, color: str, anchor: str = "start") -> str:
    if not text:
        return ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'
