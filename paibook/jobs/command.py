"""The program ``paibook``: the command line, or which extra it lacks."""

from __future__ import annotations

import sys

from paibook.errors import PaibookError
from paibook.jobs.startup import without_iri_grammar


def main() -> int:
    """Carry out the command line of this process; returns the exit code."""
    try:
        with without_iri_grammar():
            from paibook.jobs.cli import main as carry_out
    except PaibookError as error:  # an extra that is not installed
        print(f"paibook: {error}", file=sys.stderr)
        return 2
    return carry_out()


if __name__ == "__main__":
    sys.exit(main())
