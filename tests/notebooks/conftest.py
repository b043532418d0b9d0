"""What the tests of the tutorials share: the runner of `make demo`, and a reader of cells."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def runner():
    spec = importlib.util.spec_from_file_location("run_quickstart", NOTEBOOKS / "run_quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tutorial(request):
    """The notebook that the module's ``TUTORIAL`` names."""
    return nbformat.read(request.module.TUTORIAL, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
