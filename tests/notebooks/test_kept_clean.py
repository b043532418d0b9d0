"""The tutorials are kept as notebooks of the paibook kernel, without what they show when they run."""

import nbformat
import pytest

from tests.notebooks.conftest import NOTEBOOKS, code_cells


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("0*.ipynb")), ids=lambda path: path.stem)
def test_it_is_kept_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "paibook"
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(notebook))
