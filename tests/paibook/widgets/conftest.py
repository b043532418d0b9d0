from collections.abc import Callable

import pytest

from paibook.metrics import Metric


@pytest.fixture
def metric() -> Callable[..., Metric]:
    """One report: ``metric(step, name, value, rank=0)``."""
    return lambda step, name, value, rank=0: Metric("", step, name, float(value), rank, 0.0)
