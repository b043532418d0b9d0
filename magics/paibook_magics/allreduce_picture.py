"""An all-reduce run as it stands, drawn: ranks, what their bytes go through, and who waits for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from paibook.runtimes.allreduce.verdict import spell
from paibook_magics.allreduce_drawing import MOST, drawing
from paibook_magics.panel_style import folded, framed
from paibook_magics.sizes import counted, short_bytes, short_count, short_time

Picture = Mapping[str, Any]
Rank = Mapping[str, Any]

THROUGH = {
    "shared": "in shared memory",
    "threads": "in one process",
    "gloo": "by gloo",
    "nccl": "by NCCL",
    "mpi": "by MPI",
    "hierarchical": "in shared memory, gloo between hosts",
}
STATES = {
    "computing": "computes",
    "communicating": "is in",
    "waiting": "waits",
    "ended": "has ended",
    "failed": "has failed",
    "stopped": "was stopped",
    "lost": "was lost",
}


def is_allreduce(summary: Mapping[str, Any]) -> bool:
    """Whether a run's summary is the picture of a ``%%pai_allreduce`` run."""
    return summary.get("model") == "allreduce"


def allreduce_bundle(picture: Picture, note: str = "") -> dict[str, str]:
    """As a MIME bundle: a drawing and a table as HTML, and the same as text.

    Args:
        picture: ``Progress.picture`` or ``Run.summary`` of a ``%%pai_allreduce`` run.
        note: A last line.
    """
    return {"text/plain": allreduce_text(picture, note), "text/html": framed(_body(picture), note)}


def allreduce_summary(picture: Picture, opened: bool, hint: str = "") -> dict[str, str]:
    """What is left of a run that has ended: a line that opens into its picture.

    Args:
        picture: ``Run.summary``.
        opened: Whether it is open at first.
        hint: What else there is to see of the run, behind the line.
    """
    return folded(allreduce_line(picture), opened, _body(picture), hint)


def allreduce_line(picture: Picture) -> str:
    """For example ``1,203 operations · 4 ranks in shared memory · 4.8 MB · 5.3 s``."""
    ranks = picture["ranks"]
    most = max((rank["operations"] for rank in ranks), default=0)
    parts = [counted(most + picture["torch"], "operation")]
    parts.append(f"{counted(len(ranks), 'rank')} {THROUGH[picture['how']]}")
    if moved := sum(rank["written"] + rank["handed"] + rank["sent"] for rank in ranks):
        parts.append(short_bytes(moved))
    return " · ".join([*parts, short_time(picture["seconds"])])


def allreduce_text(picture: Picture, note: str = "") -> str:
    """The picture's words and numbers, a line for each rank."""
    columns = _columns(picture)
    lines = [allreduce_line(picture), *_waits(picture)]
    for rank in picture["ranks"][:MOST]:
        numbers = ", ".join(f"{title} {cell(rank)}" for title, cell in columns if cell(rank) not in ("", "0"))
        lines.append(f"rank {rank['rank']}  {doing(rank)}  {numbers}".rstrip())
    lines += [_sent(link) for link in picture["links"][:MOST]]
    return "\n".join([*lines, *_notes(picture), *([note] if note else [])])


def doing(rank: Rank) -> str:
    """What a rank does, in a few words: ``waits in Allreduce #3, line 10``."""
    words = STATES[rank["state"]]
    if rank["call"] is not None:
        words += f"{'' if rank['state'] == 'communicating' else ' in'} {operation(rank)}"
    return words if rank["line"] is None else f"{words}, line {rank['line']}"


def operation(rank: Rank) -> str:
    """The operation a rank is in: ``Allreduce #3``."""
    name = str(rank["call"]).partition(" of ")[0].partition(" (")[0]
    return f"{name} #{rank['number']}" if rank["number"] else name


def _body(picture: Picture) -> str:
    waits = "".join(f'<div class="pai-bad">{escape(line)}</div>' for line in _waits(picture))
    first, *others = _notes(picture) or [""]
    notes = f'<div class="pai-counters">{escape(first)}</div>'
    notes += "".join(f'<div class="pai-note">{escape(line)}</div>' for line in others)
    return drawing(picture, doing) + waits + _table(picture) + notes


def _waits(picture: Picture) -> list[str]:
    """Who waits for whom, a line for each operation that ranks wait in."""
    ranks = {rank["rank"]: rank for rank in picture["ranks"]}
    groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    awaited: dict[int, list[int]] = {}
    for rank, other in picture["waits"]:
        awaited.setdefault(rank, []).append(other)
    for rank, others in awaited.items():
        call = operation(ranks[rank]) if ranks[rank]["call"] else ""
        groups.setdefault((call, tuple(others)), []).append(rank)
    lines = []
    for (call, missing), waiting in groups.items():
        verb = "waits" if len(waiting) == 1 else "wait"
        if any(ranks[rank]["state"] == "stopped" for rank in waiting):
            verb = "waited"
        where = f" in {call}" if call else ""
        since = short_time(max(ranks[rank]["seconds"] for rank in waiting))
        lines.append(f"{spell(waiting)} {verb}{where} for {spell(missing)}{_about(ranks, missing)} · {since}")
    return lines


def _about(ranks: Mapping[int, Rank], others: Sequence[int]) -> str:
    """What the one that is waited for does instead."""
    return f", which {doing(ranks[others[0]])}" if len(others) == 1 and others[0] in ranks else ""


def _notes(picture: Picture) -> list[str]:
    lines = []
    if picture["operations"]:
        lines.append(" · ".join(_kind(name, **numbers) for name, numbers in picture["operations"].items()))
    if picture["torch"]:
        lines.append(f"{counted(picture['torch'], 'collective')} by torch.distributed, which does not tell their bytes")
    if any(not name[0].islower() for name in picture["operations"]) or not picture["torch"]:
        lines += [f"all-reduce{_limit(path, picture['paths'])}: {path[1]}" for path in picture["paths"]]
    return lines


def _kind(name: str, count: int, bytes: int | None) -> str:
    return f"{name} {short_count(count)}" + ("" if bytes is None else f" ({short_bytes(bytes)} a rank)")


def _limit(path: Sequence[Any], paths: Sequence[Any]) -> str:
    if path[0] is not None:
        return f" up to {short_bytes(path[0])}"
    return " above" if len(paths) > 1 else ""


def _sent(link: Sequence[int]) -> str:
    source, dest, messages, size = link
    return f"rank {source} to rank {dest}: {counted(messages, 'message')}, {short_bytes(size)}"


def _columns(picture: Picture) -> list[tuple[str, Any]]:
    """Titles of the columns that have something in them, and what a rank has there."""
    library = {"nccl": "NCCL", "mpi": "MPI"}.get(picture["how"], "gloo")
    written = "lent" if picture["how"] == "threads" else "written"
    columns = [
        ("operations", "operations", short_count),
        (written, "written", short_bytes),
        ("read", "read", short_bytes),
        (f"given to {library}", "handed", short_bytes),
        (f"in {library}", "library_seconds", short_time),
        ("messages", "messages", short_count),
        ("sent", "sent", short_bytes),
        ("waited", "waited", short_time),
    ]
    shown = [column for column in columns if any(rank[column[1]] for rank in picture["ranks"])]
    return [(title, _cell(name, form)) for title, name, form in shown]


def _cell(name: str, form: Any) -> Any:
    def cell(rank: Rank) -> str:
        value = rank[name]
        if name == "waited" and rank["state"] == "waiting":
            value += rank["seconds"]
        return str(form(value)) if value else ""

    return cell


def _table(picture: Picture) -> str:
    columns = _columns(picture)
    head = "".join(f"<th>{escape(title)}</th>" for title, _ in columns)
    rows = "".join(
        f"<tr><td>{rank['rank']}</td>{''.join(f'<td>{escape(cell(rank))}</td>' for _, cell in columns)}"
        f'<td class="pai-text">{"" if rank["state"] == "ended" else escape(doing(rank))}</td></tr>'
        for rank in picture["ranks"][:MOST]
    )
    more = len(picture["ranks"]) - MOST
    left = f'<div class="pai-note">{more} more ranks are not shown</div>' if more > 0 else ""
    return (
        f'<table class="pai-table"><thead><tr><th>rank</th>{head}<th></th></tr></thead>'
        f"<tbody>{rows}</tbody></table>{left}"
    )
