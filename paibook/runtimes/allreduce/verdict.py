"""Who is guilty when a cell fails on several ranks, as pure decisions over their reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from paibook.errors import RankLost, UserCodeError
from paibook.runtimes.allreduce.cell import Report


def failed(report: Report) -> bool:
    """Whether the cell did not end well there."""
    return report.error is not None or report.interrupted


def is_cause(report: Report) -> bool:
    """Whether the rank failed by itself, not because a peer was gone or it was interrupted."""
    return report.error is not None and not report.consequence


def in_step(reports: Sequence[Report], size: int) -> bool:
    """Whether the ranks' groups can still be used after a failure: nobody is ahead of anybody else."""
    if len(reports) < size or any(report.interrupted or report.consequence for report in reports):
        return False
    begun = {(report.steps[0], report.steps[3]) for report in reports}
    return len(begun) == 1 and unreceived(reports) == 0


def unreceived(reports: Iterable[Report]) -> int:
    """Messages that the ranks of a whole group have sent to each other, and none has received."""
    return sum(report.steps[1] - report.steps[2] for report in reports)


def verdict(reports: Iterable[Report], lost: Mapping[int, RankLost]) -> UserCodeError | RankLost | None:
    """The one error to raise: a lost rank, else the first real exception, else the first broken operation.

    A loss is noticed up to half a second late, and what peers raise meanwhile is mostly about it.
    """
    if lost:
        return lost[min(lost)]
    errors = sorted((r for r in reports if r.error is not None), key=lambda r: (r.consequence, r.time, r.rank))
    causes = [report for report in errors if is_cause(report)]
    return _merged(causes or errors) if errors else None


def _merged(reports: Sequence[Report]) -> UserCodeError:
    """The first report's error, with the other ranks' errors added in a line each; equal ones share it."""
    guilty = reports[0].error
    assert guilty is not None
    same: list[int] = []
    others: dict[tuple[str, str], list[int]] = {}
    for report in reports[1:]:
        error = report.error
        assert error is not None
        if (error.name, error.message) == (guilty.name, guilty.message):
            same.append(report.rank)
        else:
            others.setdefault((error.name, error.message), []).append(report.rank)
    notes = [f"{spell(same)}: same"] if same else []
    notes += [f"{spell(ranks)}: {name}: {message}" for (name, message), ranks in others.items()]
    traceback = guilty.traceback if not notes else guilty.traceback.rstrip("\n") + "\n\n" + "\n".join(notes) + "\n"
    return UserCodeError(guilty.where, guilty.name, guilty.message, traceback, guilty.original)


def spell(ranks: Iterable[int]) -> str:
    """Ranks in words.

    >>> spell([3, 1, 2]), spell([0]), spell([0, 2, 3])
    ('ranks 1-3', 'rank 0', 'ranks 0, 2-3')
    """
    ordered = sorted(ranks)
    runs: list[list[int]] = []
    for rank in ordered:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"{'rank' if len(ordered) == 1 else 'ranks'} {text}"
