"""Run suites of benchmarks: ``python -m benchmarks [cells mapreduce ...] [--rounds 3] [--only ipyparallel]``."""

from __future__ import annotations

import argparse
import importlib

from benchmarks import suite

SUITES = ("cells", "mapreduce", "training", "allreduce", "growth", "ps", "keys", "curves")


def main() -> None:
    """Run the suites named, all by default. The exit code says whether they ran, not what they found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], help="which suites; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="turns each side takes (default 3)")
    parser.add_argument("--only", action="append", help="this peer alone (repeatable); nothing is written then")
    parser.add_argument("--note", default="", help="a sentence for the document, such as what else the machine did")
    arguments = parser.parse_args()
    for name in arguments.suites or SUITES:
        run_suite(name, arguments.rounds, arguments.only, arguments.note)


def run_suite(name: str, rounds: int, only: list[str] | None, note: str) -> None:
    """Run one suite, print its lines and write its results."""
    module = importlib.import_module(f"benchmarks.{name}")
    sides = [side for side in module.SIDES if side.name == suite.OURS or not only or side.name in only]
    record = suite.run(sides, module.MEASURES, module.turn, rounds)
    rows = suite.comparisons(record, module.MEASURES, sides)
    for row in rows:
        print(row.line())
    if rows and not only:
        suite.publish(name, record, rows, module.MEASURES, note)
        if hasattr(module, "draw"):
            module.draw(record)


if __name__ == "__main__":
    main()
