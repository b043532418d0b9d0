"""A quick start for the processes of jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

GRAMMAR = "rfc3987_syntax"


@contextmanager
def without_iri_grammar() -> Iterator[None]:
    """Import nbformat and what it needs in here, over a second sooner.

    jsonschema compiles a grammar of IRIs when it is imported, where it finds the package; notebooks have none to check.
    """
    if GRAMMAR in sys.modules:
        yield
        return
    sys.modules[GRAMMAR] = None  # type: ignore[assignment]  # reads as "not installed"
    try:
        yield
    finally:
        del sys.modules[GRAMMAR]
