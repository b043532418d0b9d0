"""A parameter-server run as it stands, drawn: workers and their clocks, servers, and what flows between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from paibook_magics.panel_style import folded, framed
from paibook_magics.sizes import counted, short_bytes, short_count, short_time

Picture = Mapping[str, Any]

WIDTH, TRACK, BOX = 680, 250, 190  # units of the drawing: its width, a worker's way, a server's box
LEFT, ROW, BOX_ROW = 78, 26, 58
HOT = 0.02  # of what a server is asked for, and a key is worth naming
MOST = 32  # workers or servers that are drawn
STATES = {"training": "", "waiting": "waits", "ended": "has ended"}


def is_ps(summary: Mapping[str, Any]) -> bool:
    """Whether a run's summary is the picture of a ``%%pai_ps`` run."""
    return summary.get("model") == "ps"


def ps_bundle(picture: Picture, note: str = "") -> dict[str, str]:
    """As a MIME bundle: a drawing and tables as HTML, and the same numbers as text.

    Args:
        picture: ``Progress.picture`` or ``Run.summary`` of a ``%%pai_ps`` run.
        note: A last line.
    """
    return {"text/plain": ps_text(picture, note), "text/html": framed(_body(picture), note)}


def ps_line(picture: Picture) -> str:
    """For example ``50 clocks · 2 workers, 2 servers · 1,200 rows, 34 kB · 100 pulls, 100 pushes · 3.2 s``."""
    tables = picture["tables"]
    rows, size = sum(table["rows"] for table in tables), sum(table["bytes"] for table in tables)
    return " · ".join(
        [
            counted(picture["clock"], "clock"),
            f"{counted(len(picture['workers']), 'worker')}, {counted(len(picture['servers']), 'server')}",
            f"{short_count(rows)} rows, {short_bytes(size)}",
            f"{counted(picture['pulls'], 'pull')}, {short_count(picture['pushes'])} pushes",
            short_time(picture["seconds"]),
        ]
    )


def ps_summary(picture: Picture, opened: bool, hint: str = "") -> dict[str, str]:
    """What is left of a run that has ended: a line that opens into its picture.

    Args:
        picture: ``Run.summary``, whose rates are means over the run.
        opened: Whether it is open at first.
        hint: What else there is to see of the run, behind the line.
    """
    return folded(ps_line(picture), opened, _body(picture), hint)


def _body(picture: Picture) -> str:
    if picture.get("planned"):
        return _drawing(picture) + _table(("server", "partitions", "copies"), _placed(picture))
    return _drawing(picture) + _servers(picture) + _staleness(picture) + _hot(picture)


# The drawing.


def _drawing(picture: Picture) -> str:
    workers, servers = picture["workers"][:MOST], picture["servers"][:MOST]
    height = 30 + max(len(workers) * ROW, len(servers) * BOX_ROW)
    at_worker = {worker["rank"]: _spread(n, len(workers), height) for n, worker in enumerate(workers)}
    at_server = {server["rank"]: _spread(n, len(servers), height) for n, server in enumerate(servers)}
    clocks = _Clocks(picture)
    parts = [
        clocks.axis(height),
        *(_flow(flow, at_worker, at_server, picture["traffic"]) for flow in picture["traffic"]),
        *(_link(left, right) for left in at_worker.values() for right in at_server.values() if picture.get("planned")),
        *(clocks.worker(worker, at_worker[worker["rank"]]) for worker in workers),
        *(_box(server, at_server[server["rank"]], servers, "planned" in picture) for server in servers),
    ]
    label = f"{len(picture['workers'])} workers at clock {picture['clock']}, {len(picture['servers'])} servers"
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {height}" '
        f'style="width:100%;max-width:{WIDTH}px;display:block;font-size:11px">{"".join(parts)}</svg>'
    )


def _spread(number: int, count: int, height: float) -> float:
    """The middle of one of several rows that share the height below the axis."""
    return 24 + (height - 30) * (number + 0.5) / max(1, count)


class _Clocks:
    """Where clocks lie on a worker's way; the last few of all there were."""

    def __init__(self, picture: Picture) -> None:
        clocks = [worker["clock"] for worker in picture["workers"]] or [0]
        bound = picture["staleness_bound"]
        active = [worker["clock"] for worker in picture["workers"] if worker["state"] != "ended"]
        self.slowest = min(active or clocks)
        self.last = max(max(clocks), self.slowest + (bound or 0), 4) + 1
        self.first = max(0, min(self.slowest, max(clocks) - 10) - 1)
        self.bound = bound if active else None

    def x(self, clock: float) -> float:
        """From left to right."""
        return LEFT + TRACK * (clock - self.first) / (self.last - self.first)

    def axis(self, height: float) -> str:
        """Marks of clocks, and the clocks in which nobody has to wait."""
        step = max(1, math.ceil((self.last - self.first) / 8))
        marks = "".join(
            f'<text x="{self.x(clock):.0f}" y="11" text-anchor="middle" fill="var(--pai-muted)">{clock}</text>'
            f'<line x1="{self.x(clock):.0f}" y1="16" x2="{self.x(clock):.0f}" y2="{height:.0f}" '
            'stroke="var(--pai-track)"/>'
            for clock in range(self.first, self.last + 1)
            if clock % step == 0
        )
        band = ""
        if self.bound:
            left, right = self.x(self.slowest), self.x(self.slowest + self.bound)
            band = (
                f'<rect x="{left:.0f}" y="16" width="{right - left:.0f}" height="{height - 16:.0f}" '
                'fill="var(--pai-brand)" opacity="0.08"><title>clocks in which nobody has to wait</title></rect>'
            )
        return f'<text x="0" y="11" fill="var(--pai-muted)">clock</text>{band}{marks}'

    def worker(self, worker: Mapping[str, Any], y: float) -> str:
        """A worker's row: its name, its way so far, and where it is."""
        x, state = self.x(worker["clock"]), worker["state"]
        color = {"training": "var(--pai-brand)", "waiting": "var(--pai-warn)", "ended": "var(--pai-good)"}[state]
        said = f"worker {worker['rank']} {STATES[state] or 'is'} at clock {worker['clock']}"
        return (
            f'<g><title>{said}</title><text x="0" y="{y + 4:.0f}" fill="var(--pai-ink)">worker {worker["rank"]}</text>'
            f'<line x1="{LEFT}" y1="{y:.0f}" x2="{x:.0f}" y2="{y:.0f}" stroke="{color}" '
            'stroke-width="3" opacity="0.45"/>'
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="6" fill="{color}"/></g>'
        )


def _flow(
    flow: Sequence[float],
    at_worker: Mapping[int, float],
    at_server: Mapping[int, float],
    traffic: Sequence[Sequence[float]],
) -> str:
    worker, server, rate = int(flow[0]), int(flow[1]), flow[2]
    if rate <= 0 or worker not in at_worker or server not in at_server:
        return ""
    width = 0.8 + 4 * math.sqrt(rate / max(other for _, _, other in traffic))
    return (
        f'<path d="{_curve(at_worker[worker], at_server[server])}" fill="none" '
        f'stroke="var(--pai-brand)" stroke-width="{width:.1f}" opacity="0.35">'
        f"<title>worker {worker} and server {server}: {short_bytes(rate)}/s</title></path>"
    )


def _link(worker: float, server: float) -> str:
    """Where something is going to flow."""
    dashed = 'fill="none" stroke="var(--pai-muted)" stroke-dasharray="3 3" opacity="0.6"'
    return f'<path d="{_curve(worker, server)}" {dashed}/>'


def _curve(worker: float, server: float) -> str:
    left, right = LEFT + TRACK + 8, WIDTH - BOX - 6
    middle = (left + right) / 2
    return f"M{left} {worker:.0f} C{middle} {worker:.0f} {middle} {server:.0f} {right} {server:.0f}"


def _box(server: Mapping[str, Any], y: float, servers: Sequence[Mapping[str, Any]], is_planned: bool = False) -> str:
    x, top = WIDTH - BOX, y - 23
    most = max(other["bytes"] + other["bytes_on_disk"] for other in servers) or 1
    full = (BOX - 16) * server["bytes"] / most
    disk = (BOX - 16) * server["bytes_on_disk"] / most
    held = f"{short_count(server['rows'])} rows, {short_bytes(server['bytes'])}"
    if is_planned:
        held = _partitions(server)
    elif server["rows_on_disk"]:
        held += f" + {short_bytes(server['bytes_on_disk'])} on disk"
    elif server["copies"]:
        held += ", with copies"
    return (
        f"<g><title>server {server['rank']}: {_partitions(server)}; its process takes "
        f"{short_bytes(server['process_bytes'])}</title>"
        f'<rect x="{x}" y="{top:.0f}" width="{BOX - 1}" height="46" rx="5" fill="none" stroke="var(--pai-line)"/>'
        f'<text x="{x + 8}" y="{top + 14:.0f}" fill="var(--pai-ink)" font-weight="600">server {server["rank"]}</text>'
        f'<text x="{x + 8}" y="{top + 28:.0f}" fill="var(--pai-muted)">{held}</text>'
        f'<rect x="{x + 8}" y="{top + 34:.0f}" width="{BOX - 16}" height="5" rx="2.5" fill="var(--pai-track)"/>'
        f'<rect x="{x + 8}" y="{top + 34:.0f}" width="{full:.1f}" height="5" rx="2.5" fill="var(--pai-brand)"/>'
        f'<rect x="{x + 8 + full:.1f}" y="{top + 34:.0f}" width="{disk:.1f}" height="5" rx="2.5" '
        'fill="var(--pai-brand)" opacity="0.35"/></g>'
    )


def _partitions(server: Mapping[str, Any]) -> str:
    answers = ", ".join(map(str, server["primary"])) or "none"
    copies = ", ".join(map(str, server["copies"]))
    return f"partitions {answers}" + (f", copies of {copies}" if copies else "")


# The tables.


def _servers(picture: Picture) -> str:
    rows = [_server_cells(server) for server in picture["servers"]]
    return _table(("server", "partitions", "copies", "pulls/s", "pushes/s", "traffic"), rows)


def _placed(picture: Picture) -> list[list[str]]:
    return [_server_cells(server)[:3] for server in picture["servers"]]


def _server_cells(server: Mapping[str, Any]) -> list[str]:
    return [
        str(server["rank"]),
        ", ".join(map(str, server["primary"])),
        ", ".join(map(str, server["copies"])),
        short_count(round(server["pulls_per_second"])),
        short_count(round(server["pushes_per_second"])),
        f"{short_bytes(server['bytes_per_second'])}/s",
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="pai-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _staleness(picture: Picture) -> str:
    return "".join(
        f'<div class="pai-counters">{escape(_staleness_line(table, seen))}</div>'
        for table, seen in picture["staleness"].items()
        if _mean(seen) > 0
    )


def _staleness_line(table: str, seen: Mapping[str, int]) -> str:
    total = sum(seen.values())
    shares = " · ".join(f"{clocks}: {100 * count / total:.0f} %" for clocks, count in list(seen.items())[:8])
    return f"staleness of {table!r}, clocks: {_mean(seen):.2g} on average ({shares})"


def _mean(seen: Mapping[str, int]) -> float:
    total = sum(seen.values())
    return sum(int(clocks) * count for clocks, count in seen.items()) / total if total else 0.0


def _hot(picture: Picture) -> str:
    line = _hot_line(picture)
    return f'<div class="pai-counters">{escape(line)}</div>' if line else ""


def _hot_line(picture: Picture) -> str:
    """Keys that are asked for out of proportion; none where all are asked for alike."""
    rows = {table["name"]: table["rows"] for table in picture["tables"]}
    hot = [
        (table, key, share) for table, key, share in picture["hot"] if share > max(HOT, 3 / max(1, rows.get(table, 0)))
    ]
    return "hot keys: " + " · ".join(f"{t}[{key}] {100 * share:.1f} %" for t, key, share in hot) if hot else ""


def ps_text(picture: Picture, note: str = "") -> str:
    """The numbers of the picture, a line for each worker and server."""
    lines = [ps_line(picture)]
    for worker in picture["workers"][:MOST]:
        lines.append(f"worker {worker['rank']}  clock {worker['clock']}  {STATES[worker['state']]}".rstrip())
    for server in picture["servers"][:MOST]:
        rank, _, _, pulls, pushes, traffic = _server_cells(server)
        held = f"{short_count(server['rows'])} rows, {short_bytes(server['bytes'])}"
        on_disk = f", {short_bytes(server['bytes_on_disk'])} on disk" if server["rows_on_disk"] else ""
        lines.append(f"server {rank}  {held}{on_disk}  {pulls} pulls/s, {pushes} pushes/s, {traffic}")
    lines += [_staleness_line(table, seen) for table, seen in picture["staleness"].items() if _mean(seen) > 0]
    return "\n".join([*lines, *filter(None, [_hot_line(picture), note])])
