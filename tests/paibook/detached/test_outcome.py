"""What a detached run leaves: results and errors as they were, and nothing unpickled that others could have written."""

from __future__ import annotations

import os
import pickle
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paibook.detached import outcome
from paibook.detached.outcome import OUTCOME, Outcome
from paibook.errors import PaibookError, RankLost, RunCancelled, RunError, UserCodeError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir(mode=0o700)
    return made


class Stubborn(Exception):
    """An exception that can be pickled, but not be made again."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def test_a_result_comes_back_as_it_was(folder: Path) -> None:
    local = 3
    assert not outcome.is_there(folder)
    Outcome({"w": np.arange(4), "f": lambda x: x + local}).save(folder)
    assert outcome.is_there(folder)
    kept = outcome.load(folder)
    assert kept.error is None
    assert kept.result["w"].tolist() == [0, 1, 2, 3]
    assert kept.result["f"](4) == 7
    assert [path.name for path in folder.iterdir()] == [OUTCOME]
    assert stat.S_IMODE((folder / OUTCOME).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "error",
    [
        RunCancelled("the run was stopped"),
        RankLost("worker", 1, "its process was killed by SIGKILL"),
        UserCodeError("rank 1", "ValueError", "no", "Traceback ...", ValueError("no")),
    ],
)
def test_an_error_comes_back_as_it_was(folder: Path, error: Exception) -> None:
    Outcome(error=error).save(folder)
    kept = outcome.load(folder).error
    assert type(kept) is type(error)
    assert str(kept) == str(error)


def test_an_error_that_cannot_be_made_again_is_told_in_words(folder: Path) -> None:
    Outcome(error=Stubborn(1, 2)).save(folder)
    kept = outcome.load(folder).error
    assert isinstance(kept, RunError)
    assert str(kept) == "Stubborn: 1 and 2"


def test_a_result_that_cannot_be_pickled_is_an_error_that_says_so(folder: Path) -> None:
    Outcome(threading.Lock()).save(folder)
    kept = outcome.load(folder)
    assert isinstance(kept.error, RunError)
    assert "the result of the run cannot be pickled" in str(kept.error)


class Trap:
    """Calls ``os.mkdir`` where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_others_may_write_is_not_unpickled(folder: Path, which: str) -> None:
    trap = folder.parent / "sprung"
    (folder / OUTCOME).write_bytes(pickle.dumps(Trap(trap)))
    loose = folder if which == "folder" else folder / OUTCOME
    loose.chmod(0o777)
    with pytest.raises(PaibookError, match="can be written by others than you"):
        outcome.load(folder)
    assert not trap.exists()


def test_what_is_damaged_or_something_else_is_named(folder: Path) -> None:
    (folder / OUTCOME).write_bytes(b"\x80\x05nothing")
    (folder / OUTCOME).chmod(0o600)
    with pytest.raises(PaibookError, match="what the run run left cannot be read in this process"):
        outcome.load(folder)
    (folder / OUTCOME).write_bytes(pickle.dumps({"result": 1}))
    with pytest.raises(PaibookError, match="does not hold the outcome of a run"):
        outcome.load(folder)
