import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# lab.py is also a program, so it is a module beside the tests and not in a package.
sys.path.insert(0, str(Path(__file__).parent))

import lab

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def browser() -> None:
    """Skip, with the reason, where there is no Chromium, Node.js or playwright-core."""
    if reason := lab.missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def jupyterlab(browser: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    """The JupyterLab of all these tests; each file takes a part of it (``Lab.part``)."""
    roots = os.pathsep.join(str(ROOT / root) for root in (".", "magics", "kernels"))
    with lab.running_lab(tmp_path_factory.mktemp("lab"), {"PYTHONPATH": roots}) as running:
        yield running
