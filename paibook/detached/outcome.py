"""What a detached run leaves for whoever asks: its result or its error, pickled in the run's folder."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from paibook.errors import PaibookError, RunError

OUTCOME = "outcome.pkl"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``error`` is None where it ended well."""

    result: Any = None
    error: BaseException | None = None

    def save(self, directory: Path) -> None:
        """Write it in one step, readable by this user only. What cannot be pickled becomes an error that says so."""
        try:
            data = cloudpickle.dumps(self._portable(), protocol=5)
        except Exception as error:  # whatever the user's objects raise while they are pickled
            data = cloudpickle.dumps(Outcome(error=RunError(f"the result of the run cannot be pickled: {error}")))
        temporary = directory / f"{OUTCOME}.new"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
            temporary.replace(directory / OUTCOME)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _portable(self) -> Outcome:
        if self.error is None:
            return self
        try:
            pickle.loads(cloudpickle.dumps(self.error, protocol=5))
        except Exception:  # an exception of the user's may fail to pickle in any way at all
            return Outcome(error=RunError(f"{type(self.error).__name__}: {self.error}"))
        return self


def is_there(directory: Path) -> bool:
    """Whether the run in this folder has left its outcome."""
    return (directory / OUTCOME).exists()


def forget(directory: Path) -> None:
    """Take away what an earlier process left; another goes on with the run."""
    (directory / OUTCOME).unlink(missing_ok=True)


def load(directory: Path) -> Outcome:
    """The outcome of the run in this folder.

    Raises:
        PaibookError: It is not this user's alone, so that somebody else may have written it, or it cannot be read here.
    """
    for path in (directory, directory / OUTCOME):
        status = path.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise PaibookError(
                f"{path} can be written by others than you; unpickling it could run their code. Make it yours alone "
                "(chmod go-w) if you know what it holds"
            )
    try:
        outcome = pickle.loads((directory / OUTCOME).read_bytes())
    except Exception as error:  # a module that is not installed here, a class that has changed
        raise PaibookError(
            f"what the run {directory.name} left cannot be read in this process: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(outcome, Outcome):
        raise PaibookError(f"{directory / OUTCOME} does not hold the outcome of a run")
    return outcome
