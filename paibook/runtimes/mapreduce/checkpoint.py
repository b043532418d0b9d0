"""The checkpoint: what a run needs to be gone on with by another process, kept in the run's folder."""

from __future__ import annotations

import os
import pickle
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paibook.errors import RunError
from paibook.runtimes.mapreduce.job import Job
from paibook.runtimes.mapreduce.steps import Done

FOLDER = "work"


@dataclass(frozen=True)
class State:
    """How a run was laid out at its start.

    Attributes:
        job: The packed program.
        splits: Each with the name of its input.
        buckets: Of each shuffle.
        slots: Tasks that the run was cut for.
        schema: Of the result, where it is known beforehand: that of a query.
        types: The result's columns in DuckDB's types, of a query.
    """

    job: Job
    splits: list[tuple[Any, str]]
    buckets: int
    slots: int
    schema: Any = None
    types: Any = None


class Checkpoint:
    """The folder ``work`` of a run: shuffle files, how the run was laid out, and a log of the tasks that finished.

    Args:
        directory: The run's own.
    """

    def __init__(self, directory: Path) -> None:
        self.folder = directory / FOLDER
        self._finished: dict[str, dict[int, Done]] = defaultdict(dict)

    def create(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: State) -> None:
        """Keep how the run is laid out."""
        temporary = self.folder / "state.new"
        temporary.write_bytes(pickle.dumps(state, protocol=5))
        temporary.replace(self.folder / "state")

    def load(self) -> State:
        """How the run was laid out, and with it the tasks that had finished.

        Raises:
            RunError: There is nothing to go on from.
        """
        try:
            state: State = pickle.loads((self.folder / "state").read_bytes())
        except OSError as error:
            raise RunError(
                "there is nothing to resume: a run leaves its finished tasks only where its notebook died, and its "
                "workers share the folder of the run history"
            ) from error
        self._read_log()
        return state

    def add(self, stage: str, number: int, done: Done) -> None:
        """Note that a task finished."""
        with (self.folder / "finished").open("ab") as file:
            file.write(pickle.dumps((stage, number, done), protocol=5))

    def finished(self, stage: str) -> dict[int, Done]:
        """Tasks of a stage that had finished before, by number."""
        return dict(self._finished[stage])

    def remove(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read_log(self) -> None:
        path = self.folder / "finished"
        if not path.exists():
            return
        whole = 0
        with path.open("rb") as file:
            while True:
                try:
                    stage, number, done = pickle.load(file)
                except Exception:  # the last entry may be cut short, and then be anything to pickle
                    break
                self._finished[stage][number] = done
                whole = file.tell()
        os.truncate(path, whole)  # what is noted next must not stand behind half an entry
