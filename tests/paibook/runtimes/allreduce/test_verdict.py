"""Who is guilty, decided on reports alone."""

from __future__ import annotations

from typing import Any

from paibook.errors import RankLost, UserCodeError
from paibook.runtimes.allreduce.cell import Report
from paibook.runtimes.allreduce.verdict import in_step, verdict


def report(rank: int, time: float = 0.0, message: str = "boom", **fields: Any) -> Report:
    error = UserCodeError(f"rank {rank}", "ValueError", message, f"Traceback\nValueError: {message}\n")
    return Report(rank, error=error, time=time, **fields)


def test_the_earliest_real_error_is_guilty() -> None:
    reports = [report(0, 3.0), report(1, 2.0, "other"), report(2, 1.0, "closed", consequence=True)]
    error = verdict([*reports, Report(3, interrupted=True)], {})
    assert isinstance(error, UserCodeError)
    assert error.where == "rank 1"
    assert error.traceback == "Traceback\nValueError: other\n\nrank 0: ValueError: boom\n"


def test_equal_errors_share_one_traceback() -> None:
    error = verdict([report(rank, rank) for rank in (3, 1, 2, 0)], {})
    assert isinstance(error, UserCodeError)
    assert error.where == "rank 0"
    assert error.traceback.endswith("ValueError: boom\n\nranks 1-3: same\n")


def test_a_lost_rank_explains_broken_connections() -> None:
    lost = RankLost("worker", 1, "exit code 3")
    assert verdict([report(0, consequence=True)], {1: lost}) is lost
    assert isinstance(verdict([report(0, consequence=True)], {}), UserCodeError)
    assert verdict([Report(0, interrupted=True), Report(1)], {}) is None


def test_groups_stay_when_nobody_is_ahead() -> None:
    ahead, behind = report(0, steps=(3, 1, 0, 0)), report(1, steps=(3, 0, 1, 0))
    assert in_step([ahead, behind], 2)
    assert not in_step([ahead], 2)
    assert not in_step([ahead, report(1, steps=(2, 0, 1, 0))], 2)
    assert not in_step([ahead, report(1, steps=(3, 0, 0, 0))], 2)
    assert not in_step([ahead, Report(1, interrupted=True, steps=(3, 0, 1, 0))], 2)
