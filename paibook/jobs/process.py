"""The process of one attempt: ``python -m paibook.jobs.process ROOT RUN``. It claims the run, or does nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from paibook.jobs.startup import without_iri_grammar


def main(arguments: list[str]) -> int:
    """Carry out one attempt; 0 where the run was had, 3 where another had it."""
    with without_iri_grammar():
        from paibook.jobs.runner import run_here
        from paibook.jobs.store import JobStore
    root, run_id = arguments
    return 0 if run_here(JobStore(Path(root)), run_id) else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
