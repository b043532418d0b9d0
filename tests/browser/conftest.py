import sys
from pathlib import Path

import pytest

# lab.py is also a program, so it is a module beside the tests and not in a package.
sys.path.insert(0, str(Path(__file__).parent))

import lab


@pytest.fixture(scope="session", autouse=True)
def browser() -> None:
    """Skip, with the reason, where there is no Chromium, Node.js or playwright-core."""
    if reason := lab.missing():
        pytest.skip(reason)
