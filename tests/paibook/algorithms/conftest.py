"""Each algorithm is tried twice: simulated, and on the inline cluster by the engine itself."""

import importlib.util
from pathlib import Path

import pytest

from paibook.history import RunHistory
from paibook.session import Session

_spec = importlib.util.spec_from_file_location("simulator", Path(__file__).with_name("simulator.py"))
simulator = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(simulator)


@pytest.fixture(params=["simulated", "inline"])
def session(request, tmp_path):
    if request.param == "simulated":
        yield simulator.SimulatedSession()
        return
    made = Session("inline", RunHistory(tmp_path / "runs"))
    yield made
    made.close()


@pytest.fixture
def simulated():
    return simulator.SimulatedSession()
