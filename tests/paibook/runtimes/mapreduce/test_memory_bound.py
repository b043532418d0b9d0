"""Data five times what a worker may use: each worker process stays under the bound, by the system's own account."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paibook.clusters.dask_cluster import EmbeddedCluster
from paibook.resources import Resources
from paibook.runtimes.mapreduce.driver import Driver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

BOUND = 256_000_000
DATA = 5 * BOUND
VALUE = 4_000  # bytes
COUNT = DATA // VALUE
KEYS = 1_000


@pytest.fixture
def fresh(run: Any) -> Iterator[Any]:
    """A runner on two worker processes that nobody used before, so that their peaks are this run's."""
    run.cluster = EmbeddedCluster(2)
    run.cluster.start()
    yield run
    run.cluster.close()


def peaks(run: Any) -> list[int]:
    """The largest memory that each worker process ever had, in bytes."""
    pids = [nanny.pid for nanny in run.cluster._client.cluster.workers.values()]
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return [int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")]


def bounded(run: Any, source: str, items: Any, **options: Any) -> tuple[Any, dict[str, int]]:
    """The result, and the peak of the workers up to the end of each stage."""
    found: dict[str, int] = {}
    plan = run.plan(source, {"variable": "items"}, **options)
    plan = replace(plan, resources=Resources(memory=BOUND))
    context = run.context({"items": items})
    context.progress = lambda progress: found.__setitem__(progress.stage, max(peaks(run)))
    result = Driver().run(plan, run.cluster, context)
    return result, found


MAP = f"""
def map(number):
    yield number % {KEYS}, b"%0{VALUE}d" % number
"""


def wide(run: Any, tmp_path: Path) -> dict[str, int]:
    """All values travel, and come out."""
    source = MAP + "def reduce(key, values):\n    for value in values:\n        yield {'key': key, 'value': value}\n"
    result, found = bounded(run, source, range(COUNT), out=str(tmp_path / "out.parquet"))
    assert result.rows == COUNT
    return found


def hot(run: Any, tmp_path: Path) -> dict[str, int]:
    """One key has most of the values."""
    source = MAP.replace(f"number % {KEYS}", f"number % {KEYS} if number % 5 == 0 else -1")
    source += "def reduce(key, values):\n    yield key, sum(len(value) for value in values)\n"
    result, found = bounded(run, source, range(COUNT))
    assert dict(result)[-1] == COUNT // 5 * 4 * VALUE
    return found


def growing(run: Any, tmp_path: Path) -> dict[str, int]:
    """Each record gives many pairs, the later ones more and larger."""
    source = """
    def map(number):
        for i in range(number % 100):
            yield (number, i), bytes(number)
    def reduce(key, values):
        yield len(values)
    """
    result, found = bounded(run, source, range(8_000))
    assert len(result) == 80 * 99 * 50
    return found


def map_only(run: Any, tmp_path: Path) -> dict[str, int]:
    source = f"reduce = None\ndef map(number):\n    yield {{'n': number, 'value': b'%0{VALUE}d' % number}}\n"
    result, found = bounded(run, source, range(COUNT), out=str(tmp_path / "out.parquet"))
    assert result.rows == COUNT
    return found


@pytest.mark.parametrize("work", [wide, hot, growing, map_only], ids=lambda work: work.__name__)
def test_workers_stay_under_the_bound(fresh: Any, tmp_path: Path, work: Callable[[Any, Path], dict[str, int]]) -> None:
    found = work(fresh, tmp_path)
    assert all(0 < peak < BOUND for peak in found.values()), found
    print({stage: f"{peak / 1e6:.0f} MB" for stage, peak in found.items()})
