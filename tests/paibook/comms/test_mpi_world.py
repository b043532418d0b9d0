"""Ranks that are MPI processes: the contract's programs under ``mpiexec``, and what is said where there is no MPI."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from paibook.comms.backends import MPI, choose, lacking, mpi_place
from paibook.errors import PlanError

CONTRACTS = Path(__file__).parents[2] / "contracts"
PROGRAM = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {contracts!r})
import mpi_programs
import numpy as np
import paibook
from paibook.comms import CommunicatorError
from paibook.comms.backends import BACKENDS, lacking, mpi_place
from paibook.comms.positions import Position, positioned
from paibook.comms.rendezvous import Meeting

size = int(sys.argv[1])
order = tuple(range(size))[::-1]  # ranks need not be numbered as MPI does
rank = order.index(mpi_place())
assert lacking(["mpi"]) == {{"mpi": ""}}
meeting = Meeting(b"t" * 32, sys.argv[2], places=order)
comm = BACKENDS["mpi"].make(rank, size, meeting, "first")
answers = {{}}
with positioned(Position(rank, size, comm)):
    for name, function in mpi_programs.PROGRAMS.items():
        answers[name] = mpi_programs.plain(function(paibook.MPI, comm))
Path(sys.argv[2], str(rank)).write_text(json.dumps(answers))
comm.Barrier()
if size > 1:
    if rank == 0:
        comm.abort()
    try:
        comm.Barrier()
    except CommunicatorError as error:
        assert str(error) == "Barrier: this group of ranks was ended", error
    else:
        raise AssertionError("a group that was ended went on")
if size > 1 and rank < 2:
    meeting = Meeting(b"t" * 32, sys.argv[2], places=order[:2])
    assert BACKENDS["mpi"].make(rank, 2, meeting, "second").allreduce(1) == 2
"""


def mpiexec() -> str | None:
    beside = Path(sysconfig.get_path("scripts")) / "mpiexec"
    return str(beside) if beside.exists() else shutil.which("mpiexec")


HERE = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or mpiexec() is None, reason="no MPI: pip install 'paibook[mpi]'"
)


@HERE
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_answers_of_mpi_itself(size: int, tmp_path: Path) -> None:
    program = PROGRAM.format(contracts=str(CONTRACTS))
    command = [mpiexec(), "-n", str(size), sys.executable, "-c", program, str(size), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    expected: dict[str, list[Any]] = json.loads((CONTRACTS / "mpi_results.json").read_text())[str(size)]
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(size)]
    for name, answers in expected.items():
        assert [each[name] for each in found] == answers, name


def test_a_process_of_no_mpi_world_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PMI_RANK", raising=False)
    monkeypatch.delenv("OMPI_COMM_WORLD_RANK", raising=False)
    monkeypatch.delenv("PMIX_RANK", raising=False)
    assert mpi_place() == -1
    with pytest.raises(PlanError, match=r"mpi is not possible on rank 0: it is no MPI process. Start .*--engines=mpi"):
        choose(MPI, [lacking([MPI])], ["a"])


def test_mpi4py_may_be_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_RANK", "3")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert mpi_place() == 3
    assert lacking([MPI]) == {MPI: "mpi4py is not installed: pip install 'paibook[mpi]'"}
