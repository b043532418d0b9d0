"""Random programs, data, shapes and deaths: whatever is drawn, a run gives what plain Python gives in one process."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from paibook.resources import Resources
from paibook.runtimes.mapreduce.driver import Driver

BAD = 13  # a number that the mapper refuses
SMALL = 500  # bytes of memory: nearly every task that has something to hold spills
DEATH = "paibook_test_death"  # a module through which cells die where all processes are this one

# What every cell has: a death at a place it was told, once; and keys as text, equal for equal keys.
HEAD = f"""
import os, signal, sys, zlib
import pandas as pd, pyarrow as pa
import paibook.runtimes.mapreduce.limits as limits
limits.LEAST = least

def die():
    if "{DEATH}" in sys.modules:
        sys.modules["{DEATH}"].die()
    os.kill(os.getpid(), signal.SIGKILL)

def at(function, place):
    for name, number in deaths:
        if name == function and zlib.crc32(place.encode()) % 4 == number:
            try:
                open(os.path.join(folder, f"{{name}}-{{number}}"), "x").close()
            except FileExistsError:
                continue
            die()

def shown(key):
    if isinstance(key, (int, float)):
        return repr(float(key))
    return "(" + ",".join(shown(part) for part in key) + ")" if isinstance(key, tuple) else repr(key)
"""

Pairs = list[tuple[Any, int]]

# What a mapper does with a key and a number: as in a cell, and here.
MAPPERS: dict[str, tuple[str, Callable[[Any, int], Pairs]]] = {
    "same": ("yield key, n", lambda key, n: [(key, n)]),
    "many": ("yield from [(key, n - i) for i in range(n % 4)]", lambda key, n: [(key, n - i) for i in range(n % 4)]),
    "few": ("yield from [(key, n)] if n % 3 else []", lambda key, n: [(key, n)] if n % 3 else []),
    "other": ("yield n % 5, n; yield (shown(key), n % 2), 1", lambda key, n: [(n % 5, n), ((shown(key), n % 2), 1)]),
    "one": ("yield 'all', n", lambda key, n: [("all", n)]),
}
# What a reducer makes of values, and whether the same function combines them.
REDUCERS: dict[str, tuple[str, Callable[[list[int]], Any], bool]] = {
    "sum": ("sum(values)", sum, True),
    "max": ("max(values)", max, True),
    "list": ("sorted(values)", sorted, False),
    "len": ("len(values)", len, False),
}
DECLARED: dict[str, Callable[[list[int]], Any]] = {
    "Sum()": sum,
    "Count()": len,
    "Min()": min,
    "Max()": max,
    "Mean()": lambda values: sum(values) / len(values),
    "TopK(2)": lambda values: sorted(values, reverse=True)[:2],
    "Distinct()": lambda values: sorted(set(values)),
}
NUMERIC = ("sum", "max", "len", "Sum()", "Count()", "Max()")  # results that a further stage may add up


@dataclass(frozen=True)
class Program:
    """A program over records ``(index, key, number)``."""

    mapper: str
    reducer: str  # of REDUCERS or DECLARED, or "" for none
    combines: bool
    partitions: bool
    orders: bool
    named: bool  # odd indices are an input of their own, with a mapper that turns the number round
    second: str = ""  # a second stage's reducer, or "" for none
    maps_again: bool = False

    def source(self) -> str:
        mapper = MAPPERS[self.mapper][0]
        cell = [HEAD, _mapper("map", mapper, "n")]
        if self.named:
            cell.append(_mapper("map_odd", mapper, "-n"))
        if self.partitions:
            cell.append("def partition(key, partitions):\n    return len(shown(key)) % partitions\n")
        if self.orders and self.reducer not in DECLARED:  # refused
            cell.append("def order(value):\n    return -value\n")
        cell.append(self._reduce("", self.reducer, last=not self.second))
        if self.second:
            if self.maps_again:
                cell.append("def map2(record):\n    key, n = record\n    at('map2', shown(key))\n    yield n % 3, n\n")
            cell.append(self._reduce("2", self.second, last=True))
        return "\n".join(cell)

    def shown(self, record: Any) -> tuple[str, str]:
        """A record of a run as text. Reducers that are functions have made their keys text themselves."""
        key, result = record
        last = self.second or self.reducer
        result = sorted(result) if last == "Distinct()" else result
        return key if last in REDUCERS else shown(key), repr(result)

    def _reduce(self, number: str, name: str, last: bool) -> str:
        if not name:
            return "reduce = None\n"
        if name in DECLARED:
            return f"reduce{number} = pai.{name}\n"
        body, _, associative = REDUCERS[name]
        key = "shown(key)" if last else "shown(key)[-2:]"
        if self.orders and name == "list" and not number:
            body = "list(values)"
        made = (
            f"def reduce{number}(key, values):\n"
            f"    at('reduce{number}', shown(key))\n    pai.counter('keys').add()\n    yield {key}, {body}\n"
        )
        if self.combines and associative:
            made += f"def combine{number}(key, values):\n    at('combine', shown(key))\n    yield key, {body}\n"
        return made

    def oracle(self, data: list[tuple[int, Any, int]]) -> tuple[list[Any], Counter[str], set[int]]:
        """What comes out, the counters, and the indices of bad records."""
        counters: Counter[str] = Counter()
        bad: set[int] = set()
        mapped: Pairs = []
        for index, key, n in data:
            if n == BAD:
                bad.add(index)
                continue
            mapped += MAPPERS[self.mapper][1](key, -n if self.named and index % 2 else n)
            counters["seen"] += n
        counters["seen"] += 0
        if not self.reducer:
            return [(shown(key), n) for key, n in mapped], counters, bad
        made = _reduced(mapped, self.reducer, counters)
        if self.orders and self.reducer == "list":
            made = [(key, result[::-1]) for key, result in made]
        if self.second:
            named = self.reducer in DECLARED
            pairs = [(key if named else shown(key)[-2:], n) for key, n in made]
            made = _reduced([(n % 3, n) for _, n in pairs] if self.maps_again else pairs, self.second, counters)
        return [(shown(key), result) for key, result in made], counters, bad


def _mapper(name: str, body: str, number: str) -> str:
    return f"""
def {name}(record):
    index, key, n = record
    at("map", str(index))
    if n == {BAD}:
        yield "never", 1
        raise ValueError(n)
    pai.counter("seen").add(n)
    n = {number}
    {body}
"""


def _reduced(pairs: Pairs, name: str, counters: Counter[str]) -> list[tuple[Any, Any]]:
    groups: dict[str, list[int]] = defaultdict(list)
    keys = {}
    for key, n in pairs:
        keys.setdefault(shown(key), key)
        groups[shown(key)].append(n)
    if name in REDUCERS and groups:
        counters["keys"] += len(groups)
    function: Callable[[list[int]], Any] = DECLARED[name] if name in DECLARED else REDUCERS[name][1]
    return [(keys[text], function(values)) for text, values in groups.items()]


def shown(key: Any) -> str:
    """As in the cell."""
    if isinstance(key, (int, float)):
        return repr(float(key))
    return "(" + ",".join(shown(part) for part in key) + ")" if isinstance(key, tuple) else repr(key)


# Keys: those that compare and those that do not, equal ones that look different, some of them hot.
KEYS = [
    0,
    1,
    1.0,
    True,
    -7,
    2.5,
    float("nan"),
    float("inf"),
    "",
    "a",
    "ä" * 40,
    b"\x00",
    None,
    (1, "x"),
    (None,),
    2**70,
]
keys = st.one_of(
    st.sampled_from(KEYS),
    st.just("hot"),
    st.integers(-50, 50),
    st.text(max_size=3),
    st.dates(),
    st.tuples(st.integers(0, 3), st.text("ab", max_size=2)),
)
numbers = st.integers(-20, 20)
places = st.tuples(st.sampled_from(["map", "reduce", "combine", "map2", "reduce2"]), st.integers(0, 3))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Programs of one or two stages, or of a map alone."""
    made = {name: draw(st.booleans()) for name in ("combines", "partitions", "orders", "named")}
    mapper = draw(st.sampled_from(sorted(MAPPERS)))
    shape = draw(st.sampled_from(["map", "one", "one", "one", "two"]))
    if shape == "map":
        return Program(mapper, "", False, False, False, made["named"])
    names = sorted(REDUCERS) + sorted(DECLARED)
    if shape == "one":
        return Program(mapper, draw(st.sampled_from(names)), **made)
    first = draw(st.sampled_from(NUMERIC))
    second = draw(st.sampled_from(names))
    return Program(mapper, first, **made, second=second, maps_again=draw(st.booleans()))


@dataclass(frozen=True)
class Case:
    """A program with everything around it."""

    program: Program
    data: list[tuple[int, Any, int]]
    reducers: int | None
    tolerant: bool
    deaths: list[tuple[str, int]]
    out: str  # "", or the ending of a path


@st.composite
def cases(draw: st.DrawFn, size: int, least_deaths: int = 0) -> Case:
    """Cases of up to ``size`` records, of which a hot key may have most."""
    found = draw(st.lists(st.tuples(keys, numbers), max_size=size))
    found += [("hot", n % 40 - 20) for n in range(draw(st.just(0) | st.integers(0, 3 * size)))]
    tolerant = draw(st.booleans())
    data = [(i, key, n if tolerant or n != BAD else n + 1) for i, (key, n) in enumerate(found)]
    reducers = draw(st.none() | st.integers(1, 5))
    program = draw(programs())
    # Only text can stand in a column of a file, whatever the keys.
    named = (program.second or program.reducer) in REDUCERS
    out = draw(st.sampled_from(["", "jsonl"])) if named else ""
    deaths = draw(st.lists(places, min_size=least_deaths, max_size=3, unique=True))
    return Case(program, data, reducers, tolerant, deaths, out)


def check(run: Any, case: Case, folder: Path, least: int) -> None:
    """Run a case on the runner's cluster and compare."""
    folder.mkdir()
    records, counters, bad = case.program.oracle(case.data)
    variables = {"deaths": case.deaths, "folder": str(folder), "least": least}
    pushed: dict[str, Any] = {"push": tuple(variables), "reducers": case.reducers}
    if case.tolerant:
        pushed["max_bad"] = len(bad)
    if case.out:
        pushed["out"] = str(folder / f"out.{case.out}")
    (run.directory / "bad.jsonl").unlink(missing_ok=True)
    if case.program.named:
        inputs: list[Any] = [{"variable": "even"}, {"variable": "odd", "name": "odd"}]
        variables |= {name: [r for r in case.data if r[0] % 2 == i] for i, name in enumerate(("even", "odd"))}
    else:
        inputs = [{"variable": "items"}]
        variables["items"] = case.data
    plan = replace(run.plan(case.program.source(), *inputs, **pushed), resources=Resources(memory=1))
    Driver().check(plan)
    found = Driver().run(plan, run.cluster, run.context(variables))
    if case.out:
        found = [tuple(record) for record in _written(found.path)]
        assert not list(folder.glob(".out*"))
    assert Counter(map(case.program.shown, found)) == Counter((key, repr(result)) for key, result in records)
    assert {name: n for name, n in run.summary["counters"].items() if n} == {k: n for k, n in counters.items() if n}
    places = [json.loads(line)["record"] for line in _lines(run.directory / "bad.jsonl")]
    assert Counter(places) == Counter(repr(record) for record in case.data if record[0] in bad)
    assert sum(stage["records_in"] for stage in run.summary["stages"][:1]) == len(case.data)
    event(f"deaths: {len(list(folder.iterdir())) - bool(case.out)}")
    event(f"spilled: {any(stage['spilled_bytes'] for stage in run.summary['stages'])}")


def _written(path: Path) -> Iterator[Any]:
    for part in sorted(path.glob("*.jsonl")):
        yield from (json.loads(line) for line in _lines(part))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(size=60), slots=st.integers(1, 4))
def test_any_program_gives_what_one_process_gives(
    run: Any, mortal: Any, tmp_path_factory: pytest.TempPathFactory, case: Case, slots: int
) -> None:
    with mortal(slots) as cluster:
        run.cluster = cluster
        check(run, case, tmp_path_factory.mktemp("case") / "deaths", SMALL)


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(size=60, least_deaths=2))
def test_any_program_gives_so_on_processes_that_die(
    on_cluster: Any, tmp_path_factory: pytest.TempPathFactory, case: Case
) -> None:
    check(on_cluster, case, tmp_path_factory.mktemp("case") / "deaths", SMALL)
