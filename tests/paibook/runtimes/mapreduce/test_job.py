"""Programs are loaded once per run, with what was pushed."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from paibook.errors import PlanError, UserCodeError
from paibook.program import Program
from paibook.runtimes.mapreduce.job import Job, load, portable

CELL = """
calls = []
class Point:
    pass
def map(record):
    calls.append(record)
    yield factor, hp.lr
def reduce(key, values):
    yield key
"""


def job(run: str = "r1", source: str = CELL) -> Job:
    return Job.pack(run, Program(source), {"factor": 3}, {"lr": 0.5})


def mapper(packed: Job) -> Any:
    return load(packed, "here").stages[0].mapper("")


def test_variables_and_hyperparameters_are_there() -> None:
    assert list(mapper(job())(0)) == [(3, 0.5)]


def test_one_load_per_run() -> None:
    assert mapper(job()) is mapper(job())
    assert mapper(job("r2")) is not mapper(job("r1"))


def test_old_programs_are_forgotten() -> None:
    for number in range(6):
        load(job(f"many{number}"), "here")
    assert sum(name.startswith("paibook_program_") for name in sys.modules) <= 4


def test_an_error_at_the_top_level_is_said_each_time() -> None:
    broken = job(source="\nimport nosuchmodule\n" + CELL)
    for _ in range(2):
        with pytest.raises(UserCodeError, match="map task 0, at the cell's top level: ModuleNotFoundError"):
            load(broken, "map task 0")


def test_functions_must_be_callable() -> None:
    with pytest.raises(UserCodeError, match="'map' is not a function: it is int"):
        load(job(source="map = 3\ndef reduce(key, values):\n    yield key"), "here")


def test_a_variable_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(PlanError, match="the variable 'lock' cannot be sent to workers"):
        Job.pack("r", Program(CELL), {"lock": threading.Lock()}, {})


def test_instances_of_the_cells_classes_leave_with_their_class() -> None:
    functions = load(job(), "here")
    point = vars(sys.modules[functions.module])["Point"]()
    assert functions.module.encode() not in portable([1, "a"], functions.module)
    assert b"cloudpickle" in portable([point], functions.module)
