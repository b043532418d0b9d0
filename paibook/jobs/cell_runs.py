"""The run that a cell was at when its kernel was killed; looked for in the kernel of the next attempt."""

from __future__ import annotations

from paibook.errors import PaibookError
from paibook.history import RunHistory
from paibook.session import driver_of
from paibook.settings import settings

# Cells of the parameter server go on from the checkpoints that they name by themselves.
RUNTIME = "mapreduce"


def cut_short(pid: int, began: float) -> str:
    """The id of a run that has finished tasks to go on from, or nothing.

    Args:
        pid: Of the kernel that was killed.
        began: When its last cell began, seconds since the epoch.
    """
    history = RunHistory(settings().runs)
    for record in history:
        if record.runtime != RUNTIME or record.pid != pid or record.started < began or record.state != "failed":
            continue
        try:
            driver_of(RUNTIME).check_resume(history.plan(record.id), history.directory(record.id))
        except PaibookError:
            return ""  # it has cleaned up after itself
        return record.id
    return ""
