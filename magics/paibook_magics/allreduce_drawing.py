"""The drawing of an all-reduce run: ranks in a ring around what their bytes go through, and arrows between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from paibook_magics.sizes import counted, short_bytes, short_time

Picture = Mapping[str, Any]
Point = tuple[float, float]

WIDTH, RADIUS_X, NODE = 680, 150, 15  # units of the drawing: its width, the ring's, a rank's radius
SHORT_SECONDS = 0.05  # a wait that is not worth a label
MOST = 32  # ranks that are drawn
LABELLED = 12  # of more, labels would lie over each other; the table has them all
COLORS = {
    "computing": "var(--pai-brand)",
    "communicating": "var(--pai-brand)",
    "waiting": "var(--pai-warn)",
    "ended": "var(--pai-good)",
    "failed": "var(--jp-error-color1, #d32f2f)",
    "stopped": "var(--pai-muted)",
    "lost": "var(--jp-error-color1, #d32f2f)",
}
HUBS = {"shared": "shared memory", "threads": "process memory", "gloo": "gloo", "nccl": "NCCL", "mpi": "MPI"}


def drawing(picture: Picture, doing: Callable[[Mapping[str, Any]], str]) -> str:
    """As an SVG element.

    Args:
        picture: See ``paibook.runtimes.allreduce.picture``.
        doing: Says what a rank does.
    """
    ranks = picture["ranks"][:MOST]
    height = _height(len(ranks)) + 80 * (picture["how"] == "hierarchical")
    order = [rank for _, here in picture["hosts"] for rank in here]
    shown = [rank for rank in order if any(rank == other["rank"] for other in ranks)]
    at = {rank: _on_ring(place, len(shown), height) for place, rank in enumerate(shown)}
    most = max([*(max(rank[name] for name in ("written", "handed", "sent")) for rank in ranks), 1])
    parts = [
        *_hubs(picture, at, height, most),
        *_messages(picture["links"], at, most),
        *(_wait(at[rank], at[other], rank, other) for rank, other in picture["waits"] if rank in at and other in at),
        *(_node(rank, at[rank["rank"]], doing(rank), len(ranks), height) for rank in ranks),
    ]
    waiting = sorted({rank for rank, _ in picture["waits"]})
    label = f"{len(picture['ranks'])} ranks" + (f"; {len(waiting)} of them wait" if waiting else "")
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {height}" '
        f'style="width:100%;max-width:{WIDTH}px;display:block;font-size:11px">{"".join(parts)}</svg>'
    )


def _height(count: int) -> int:
    return next((height for most, height in ((2, 110), (4, 170), (8, 240), (16, 320)) if count <= most), 460)


def _on_ring(place: int, count: int, height: float) -> Point:
    angle = math.radians(270 - 180 / count + 360 * place / count) if count > 1 else math.pi
    return WIDTH / 2 + RADIUS_X * math.cos(angle), height / 2 + (height / 2 - 26) * math.sin(angle)


# What collectives go through.


def _hubs(picture: Picture, at: Mapping[int, Point], height: float, most: float) -> list[str]:
    """The memory of each host, or the library, and how much each rank has moved through it."""
    middle = (WIDTH / 2, height / 2)
    ranks = {rank["rank"]: rank for rank in picture["ranks"]}
    if picture["how"] != "hierarchical":
        name = "written" if picture["how"] in ("shared", "threads") else "handed"
        moved = {rank: ranks[rank][name] for rank in at}
        return _hub(HUBS[picture["how"]], middle, at, moved, most, name == "handed")
    parts = _hub("gloo", middle, at, {rank: ranks[rank]["handed"] for rank in at}, most, True)
    for host, here in picture["hosts"]:
        near = {rank: at[rank] for rank in here if rank in at}
        if near:
            x, y = (sum(point[axis] for point in near.values()) / len(near) for axis in (0, 1))
            place = middle[0] + 0.8 * (x - middle[0]), middle[1] + 0.8 * (y - middle[1])
            moved = {rank: ranks[rank]["written"] for rank in near}
            parts += _hub(f"memory of {host}", place, near, moved, most, False)
    return parts


def _hub(
    name: str, place: Point, at: Mapping[int, Point], moved: Mapping[int, float], most: float, hides: bool
) -> list[str]:
    width = 7 * len(name) + 20
    dashes = ' stroke-dasharray="4 3"' if hides else ""
    verb = "has given it" if hides else "has written"
    spokes = [
        f'<line x1="{at[rank][0]:.0f}" y1="{at[rank][1]:.0f}" x2="{place[0]:.0f}" y2="{place[1]:.0f}" '
        f'stroke="var(--pai-brand)" stroke-width="{_thickness(size, most):.1f}" opacity="0.35"{dashes}>'
        f"<title>rank {rank} {verb} {short_bytes(size)}</title></line>"
        for rank, size in moved.items()
        if size
    ]
    box = (
        f'<rect x="{place[0] - width / 2:.0f}" y="{place[1] - 13:.0f}" width="{width}" height="26" rx="5" '
        f'fill="var(--jp-layout-color0, Canvas)" stroke="var(--pai-line)"{dashes}/>'
        f'<text x="{place[0]:.0f}" y="{place[1] + 4:.0f}" text-anchor="middle" fill="var(--pai-ink)">'
        f"{escape(name)}</text>"
    )
    hint = f"{name} does not tell which rank sends to which" if hides else "every rank of the host writes and reads it"
    return [*spokes, f"<g><title>{escape(hint)}</title>{box}</g>"]


def _thickness(size: float, most: float) -> float:
    return 1.2 + 4 * math.sqrt(size / most)


# Arrows.


def _messages(links: Sequence[Sequence[int]], at: Mapping[int, Point], most: float) -> list[str]:
    return [
        _arrow(at[source], at[dest], 0.16, "var(--pai-good)", _thickness(size, most), ' opacity="0.55"', title)
        for source, dest, messages, size in links
        if source in at and dest in at and source != dest
        for title in [f"rank {source} to rank {dest}: {counted(messages, 'message')}, {short_bytes(size)}"]
    ]


def _wait(start: Point, end: Point, rank: int, other: int) -> str:
    title = f"rank {rank} waits for rank {other}"
    return _arrow(start, end, -0.2, "var(--pai-warn)", 1.8, ' stroke-dasharray="6 4"', title)


def _arrow(start: Point, end: Point, bend: float, color: str, width: float, more: str, title: str) -> str:
    """From the rim of one rank to that of another, bent to one side so that the two directions lie apart."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    bow = (start[0] + end[0]) / 2 - bend * dy, (start[1] + end[1]) / 2 + bend * dx
    first, last = _toward(start, bow, NODE + 2), _toward(end, bow, NODE + 3)
    tip = _toward(end, bow, NODE + 1)
    back = _toward(last, bow, 5 + width)
    nx, ny = (back[1] - tip[1]) * 0.42, (tip[0] - back[0]) * 0.42
    head = f"{tip[0]:.1f},{tip[1]:.1f} {back[0] + nx:.1f},{back[1] + ny:.1f} {back[0] - nx:.1f},{back[1] - ny:.1f}"
    return (
        f"<g{more if 'opacity' in more else ''}><title>{escape(title)}</title>"
        f'<path d="M{first[0]:.1f} {first[1]:.1f} Q{bow[0]:.1f} {bow[1]:.1f} {back[0]:.1f} {back[1]:.1f}" fill="none" '
        f'stroke="{color}" stroke-width="{width:.1f}"{more if "dash" in more else ""}/>'
        f'<polygon points="{head}" fill="{color}"/></g>'
    )


def _toward(start: Point, end: Point, distance: float) -> Point:
    length = math.dist(start, end) or 1.0
    return start[0] + (end[0] - start[0]) * distance / length, start[1] + (end[1] - start[1]) * distance / length


# Ranks.


def _node(rank: Mapping[str, Any], place: Point, words: str, count: int, height: float) -> str:
    x, y = place
    color = COLORS[rank["state"]]
    full = rank["state"] != "lost"
    circle = (
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{NODE}" stroke="{color}" stroke-width="2" '
        + (f'fill="{color}"/>' if full else 'fill="var(--jp-layout-color0, Canvas)" stroke-dasharray="3 3"/>')
        + f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle" font-weight="600" '
        + f'fill="{"var(--jp-layout-color0, #fff)" if full else color}">{rank["rank"]}</text>'
    )
    return f"<g><title>rank {rank['rank']} {escape(words)}</title>{circle}{_label(rank, place, words, count)}</g>"


def _label(rank: Mapping[str, Any], place: Point, words: str, count: int) -> str:
    if count > LABELLED:
        return ""
    x, y = place
    side = -1 if x < WIDTH / 2 - 1 else 1
    anchor, left = ("end" if side < 0 else "start"), x + side * (NODE + 6)
    if rank["state"] == "ended":
        words = f"waited {short_time(rank['waited'])}" if rank["waited"] >= SHORT_SECONDS else ""
    head, _, line = words.partition(", line ")
    below = [f"line {line}"] if line else []
    if rank["state"] == "waiting":
        below.append(short_time(rank["seconds"]))
    second = " · ".join(below)
    at = y - 2 if second else y + 4
    text = f'<text x="{left:.0f}" y="{at:.0f}" text-anchor="{anchor}" fill="var(--pai-ink)">{escape(head)}</text>'
    if second:
        text += (
            f'<text x="{left:.0f}" y="{y + 11:.0f}" text-anchor="{anchor}" fill="var(--pai-muted)">'
            f"{escape(second)}</text>"
        )
    return text
