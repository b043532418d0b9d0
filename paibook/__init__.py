"""paibook: distributed machine learning from a notebook.

In a notebook: ``%load_ext paibook``, then ``%%pai_mapreduce``, ``%%pai_allreduce`` or ``%%pai_ps``. The names below are
what a cell's own code uses, as ``import paibook as pai``.
"""

from __future__ import annotations

from typing import Any

from paibook.errors import PaibookError
from paibook.hyperparameters import HyperParameters
from paibook.metrics import log

__version__ = "0.1.0"
__all__ = ["HyperParameters", "PaibookError", "__version__", "log"]


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext paibook``: the one import upward, made only when a notebook asks for it."""
    from paibook_magics import load_ipython_extension as load

    load(shell)
