"""The curves suite: what metrics and their live curves cost training that logs 1,000 values a second on each rank.

Every side runs the same steps, of a millisecond each, in a notebook's cell. With as many ranks as cores there is no
core left for the notebook, which reads, saves and draws what they log.
"""

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from benchmarks.comparison import Target
from benchmarks.sides import PAIBOOK as NOTEBOOK
from benchmarks.suite import Measure, Outcome, Outcomes

SECONDS = 120.0  # after which a side has failed
STEPS = 6000
RANKS = (1, 2)


@dataclass(frozen=True)
class Variant:
    """One side.

    Attributes:
        name, package, python: As for every side.
        prepare: Run in the notebook first.
        log: What a step does beside its work.
    """

    name: str
    package: str = "paibook"
    python: Path = Path(sys.executable)
    prepare: str = "pass"
    log: str = "pai.log(step=step, loss=1 / (1 + step))"


SIDES = (
    Variant("paibook"),
    Variant(
        "without the curves",
        prepare="from paibook.widgets.live import LiveCurves\nLiveCurves.tick = LiveCurves.finish = lambda self: None",
    ),
    Variant("without metrics", log="pass"),
)


def named(ranks: int) -> str:
    """The measure's name."""
    return f"a step that logs, {ranks} rank{'s' if ranks > 1 else ''}"


MEASURES = tuple(Measure(named(ranks), "ms", Target(1.02, "ratio")) for ranks in RANKS)


def turn(side: Variant) -> Outcomes:
    """Both numbers of ranks, once.

    Raises:
        RuntimeError: A cell failed; says how.
    """
    outcomes: Outcomes = {}
    for ranks in RANKS:
        with NOTEBOOK.front_end() as notebook:
            for code in (*NOTEBOOK.cells, side.prepare, cell(side.log, ranks, 200)):
                _shown(notebook.execute(code, SECONDS))
            found = re.findall(r"took ([\d.e-]+)", _shown(notebook.execute(cell(side.log, ranks, STEPS), SECONDS)))
        if len(found) != ranks:
            raise RuntimeError(f"{len(found)} of {ranks} ranks said how long they took")
        outcomes[named(ranks)] = Outcome(max(map(float, found)) / STEPS * 1e3)
    return outcomes


def cell(log: str, ranks: int, steps: int) -> str:
    """A training of ``steps`` steps of fixed work on one thread, which prints how long it took."""
    return textwrap.dedent(f"""\
        %%pai_allreduce -n {ranks}
        import time
        import numpy as np
        weights = np.linspace(0, 1, 120_000)
        def work():
            total = 0.0
            for _ in range(8):
                total += float(np.sqrt(weights * 1.5 + 0.5).sum())
            return total
        work()
        began = time.perf_counter()
        for step in range({steps}):
            work()
            {log}
        print(f"took {{time.perf_counter() - began}}")""")


def _shown(cell: object) -> str:
    status, text = getattr(cell, "status", ""), str(getattr(cell, "text", ""))
    if status != "ok":
        raise RuntimeError(f"the cell ended as {status}: {text[-2000:]}")
    return text
