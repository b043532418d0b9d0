"""The errors paibook raises on purpose; anything else that reaches a user is a bug or the user's own exception."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import cloudpickle


class PaibookError(Exception):
    """Base of every error with a message written for the person at the notebook."""

    def _render_traceback_(self) -> list[str]:
        # IPython's hook: the message says what to do; the path it took through paibook does not.
        return [f"{type(self).__name__}: {self}"]


class PlanError(PaibookError):
    """An option or a resource that cannot be meant as given."""


class NoGPU(PlanError):
    """GPUs were asked for where there is none at all."""


class ProgramError(PaibookError):
    """The cell cannot run under its programming model; found before anything is launched."""


class DataError(PaibookError):
    """An input that cannot be read or an output that cannot be written; names the file and the place in it."""


class TableError(PaibookError, ValueError):
    """A parameter-server table declared or used in a way that cannot be meant: names it, what was expected and got."""


class ClusterError(PaibookError):
    """A cluster that cannot be reached, started or made large enough."""


class RunError(PaibookError):
    """A run that failed on the cluster for a reason outside the user's code."""


class RunCancelled(PaibookError):
    """The run was cancelled by the user (Stop, or ``Run.cancel()``)."""


class RankLost(RunError):
    """A rank's process ended while it was running something.

    Args:
        role: The group it belonged to, ``"worker"`` or ``"server"``.
        rank: Its rank.
        cause: What ended it, as the operating system says: a signal or an exit code.
    """

    def __init__(self, role: str, rank: int, cause: str) -> None:
        super().__init__(f"{role} rank {rank} was lost: {cause}")
        self.role = role
        self.rank = rank
        self.cause = cause

    def __reduce__(self) -> tuple[type[RankLost], tuple[str, int, str]]:
        return (type(self), (self.role, self.rank, self.cause))


class UserCodeError(PaibookError):
    """The user's code raised, on one rank or in one task.

    Args:
        where: For example ``"rank 1"`` or ``"map task 3"``.
        name: Class name of the original exception.
        message: Its text.
        traceback: The formatted traceback, from the user's first own line down.
        original: The exception itself; in another process a copy without traceback, or None where it does not pickle.
    """

    def __init__(
        self, where: str, name: str, message: str, traceback: str, original: BaseException | None = None
    ) -> None:
        super().__init__(f"{where}: {name}: {message}" if message else f"{where}: {name}")
        self.where = where
        self.name = name
        self.message = message
        self.traceback = traceback
        self.original = original

    def __reduce__(self) -> tuple[Callable[..., UserCodeError], tuple[str, str, str, str, bytes | None]]:
        return (_rebuild, (self.where, self.name, self.message, self.traceback, _portable(self.original)))

    def _render_traceback_(self) -> list[str]:
        # IPython's hook: show the cell's own lines, not the path the error took through paibook.
        return [f"{self.name} on {self.where}", "", *self.traceback.rstrip("\n").splitlines()]


def _portable(error: BaseException | None) -> bytes | None:
    try:
        pickled = cloudpickle.dumps(error)
        pickle.loads(pickled)
    except Exception:  # a user-defined exception may fail to pickle in any way at all
        return None
    return bytes(pickled)


def _rebuild(where: str, name: str, message: str, traceback: str, original: bytes | None) -> UserCodeError:
    return UserCodeError(where, name, message, traceback, pickle.loads(original) if original is not None else None)
