"""External grouping gives what a dict of lists gives, however little it may hold."""

from __future__ import annotations

import datetime
import math
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paibook.errors import DataError
from paibook.runtimes.mapreduce import external
from paibook.runtimes.mapreduce.external import SpilledValues, Spills, grouped, in_order
from paibook.runtimes.mapreduce.runs import BlockFile
from paibook.runtimes.mapreduce.shuffle import Block

NAN = "the NaN"


@dataclass(frozen=True, order=True)
class Version:
    major: int
    name: str


class CaseBlind:
    """Equality of its own, which only it can know: all share one stable hash."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CaseBlind) and self.text.lower() == other.text.lower()

    def __hash__(self) -> int:
        return hash(self.text.lower())


numbers = st.integers(-5, 5) | st.integers(-5, 5).map(float) | st.booleans() | st.sampled_from([0.5, math.inf, 2**70])
words = st.text("ab\0é", max_size=2)
dates = st.dates(datetime.date(2020, 1, 1), datetime.date(2020, 1, 9))
comparable = st.one_of(
    st.lists(numbers, max_size=60),
    st.lists(words, max_size=60),
    st.lists(st.tuples(words, numbers), max_size=60),
    st.lists(st.tuples(words) | st.tuples(words, numbers), max_size=60),
    st.lists(dates, max_size=60),
    st.lists(st.builds(Version, st.integers(0, 3), words), max_size=60),
)
anything = numbers | words | dates | st.none() | st.just(math.nan) | st.tuples(words | numbers, numbers)
mixed = st.lists(
    anything | st.frozensets(numbers, max_size=2) | st.builds(CaseBlind, st.sampled_from("aAbB")), max_size=60
)
budgets = st.sampled_from([1, 400, 3000, 1 << 30])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def many_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "FAN_IN", 3)


def blocks_of(keys: list[Any], size: int) -> Iterator[Block]:
    """Pairs of a key and its number, every other block with several values for each key."""
    for start in range(0, len(keys), size):
        some = [math.nan + 0 if key != key else key for key in keys[start : start + size]]
        ids = range(start, start + len(some))
        if start // size % 2:
            yield some, [2] * len(some), [value for i in ids for value in (i, -i)]
        else:
            yield some, None, list(ids)


def expected(blocks: Iterator[Block]) -> dict[Any, list[int]]:
    groups: dict[Any, list[int]] = {}
    for keys, counts, values in blocks:
        rest = iter(values)
        for key, count in zip(keys, counts or [1] * len(keys), strict=True):
            groups.setdefault(NAN if key != key else key, []).extend(next(rest) for _ in range(count))
    return groups


def collected(items: Iterator[tuple[Any, Sequence[Any]]]) -> list[tuple[Any, list[Any]]]:
    made = []
    for key, values in items:
        found = list(values)
        assert list(values) == found
        assert len(values) == len(found)
        made.append((NAN if key != key else key, found))
    return made


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@settings(deadline=None, max_examples=60)
@given(comparable, budgets, st.integers(1, 7), st.booleans())
def test_keys_come_in_order(folder: Path, keys: list[Any], budget: int, size: int, descending: bool) -> None:
    items, ordered = grouped(blocks_of(keys, size), budget, folder, descending=descending)
    found = collected(items)
    assert ordered
    groups = expected(blocks_of(keys, size))
    assert found == [(key, groups[key]) for key in sorted(groups, reverse=descending)]
    # Of equal keys the first to come stands for all, as in a dict.
    first = {key: type(key) for key in groups}
    assert [type(key) for key, _ in found] == [first[key] for key, _ in found]
    assert not files(folder)


@settings(deadline=None, max_examples=100)
@given(mixed, budgets, st.integers(1, 7), st.booleans())
@example([math.nan] * 9, 1, 1, False)
@example([None, math.nan, None], 1, 1, True)
@example([CaseBlind(text) for text in "aAbB" * 9], 400, 3, True)
def test_equal_keys_meet_once(folder: Path, keys: list[Any], budget: int, size: int, descending: bool) -> None:
    items, _ = grouped(blocks_of(keys, size), budget, folder, descending=descending)
    found = collected(items)
    assert len(dict(found)) == len(found)
    assert dict(found) == expected(blocks_of(keys, size))
    assert not files(folder)


@settings(deadline=None, max_examples=60)
@given(comparable | mixed, budgets, st.integers(1, 7))
def test_combined_values_have_the_same_sum(folder: Path, keys: list[Any], budget: int, size: int) -> None:
    items, _ = grouped(blocks_of(keys, size), budget, folder, combine=lambda key, values: [sum(values)])
    sums = {key: sum(values) for key, values in expected(blocks_of(keys, size)).items()}
    assert {key: sum(values) for key, values in collected(items)} == sums


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=200), budgets, st.integers(1, 50))
def test_values_in_an_order_of_their_own(folder: Path, keys: list[str], budget: int, size: int) -> None:
    def order(value: int) -> int:
        return value % 3

    groups = expected(blocks_of(keys, size))
    items, _ = grouped(blocks_of(keys, size), budget, folder)
    for key, values in items:
        assert list(in_order(values, order)) == sorted(groups[key], key=order)


def test_what_fits_is_not_written(tmp_path: Path) -> None:
    spills = Spills()
    items, ordered = grouped(blocks_of(["b", "a", "b"], 2), 1 << 20, tmp_path / "absent", spills=spills)
    assert (list(items), ordered) == ([("a", [1]), ("b", [0, 2, -2])], True)
    assert (spills.runs, spills.bytes) == (0, 0)


def test_runs_are_counted_and_removed_when_the_result_is_closed(tmp_path: Path) -> None:
    spills = Spills()
    items, _ = grouped(blocks_of([f"k{i % 50}" for i in range(500)], 10), 2000, tmp_path, spills=spills)
    written = sum(path.stat().st_size for path in files(tmp_path))
    assert 0 < written <= spills.bytes
    assert spills.runs > 10
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


def test_runs_are_removed_when_a_combiner_raises(tmp_path: Path) -> None:
    def combine(key: Any, values: list[Any]) -> list[Any]:
        if key == "k9":
            raise ZeroDivisionError
        return values

    with pytest.raises(ZeroDivisionError):
        grouped(blocks_of([f"k{i}" for i in range(20)], 1), 500, tmp_path, combine)
    assert not list(tmp_path.iterdir())


def test_a_combiner_may_keep_everything_in_memory(tmp_path: Path) -> None:
    spills = Spills()
    blocks = (([f"k{i % 5}" for i in range(100)], None, list(range(1000, 1100))) for _ in range(50))
    items, _ = grouped(blocks, 20_000, tmp_path, lambda key, values: [sum(values)], spills=spills)
    assert sum(sum(values) for _, values in items) == 50 * sum(range(1000, 1100))
    assert spills.runs == 0


def test_nan_comes_last_in_either_direction(tmp_path: Path) -> None:
    keys = [2.0, math.nan, 1.0, 3.0] * 20
    for budget in (1, 1 << 20):
        for descending in (False, True):
            items, ordered = grouped(blocks_of(keys, 4), budget, tmp_path, descending=descending)
            assert [key for key, _ in collected(items)] == [*sorted([1.0, 2.0, 3.0], reverse=descending), NAN]
            assert ordered


def test_keys_of_one_hash_are_grouped_by_equality(tmp_path: Path) -> None:
    keys = [CaseBlind(text) for text in "aBcAbCdD" * 50]
    items, ordered = grouped(blocks_of(keys, 8), 3000, tmp_path)
    found = {key.text.lower(): len(values) for key, values in items}
    assert found == {"a": 150, "b": 150, "c": 150, "d": 150}
    assert not ordered


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("paibook.runtimes.mapreduce.runs.pickle.dump", full)
    with pytest.raises(DataError, match="No space left on device; free space there"):
        grouped(blocks_of(["a"] * 50, 5), 100, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def spilled(tmp_path: Path) -> SpilledValues:
    values = SpilledValues(tmp_path, 3000, Spills())
    for start in range(0, 1000, 300):
        values.extend(list(range(start, min(1000, start + 300))))
    return values


def test_spilled_values_are_a_sequence(spilled: SpilledValues) -> None:
    values = list(range(1000))
    assert list(spilled) == list(spilled) == values
    assert list(reversed(spilled)) == values[::-1]
    assert [spilled[i] for i in (0, 299, 300, 999, -1, -1000)] == [0, 299, 300, 999, 999, 0]
    for some in (slice(None), slice(10, 700, 7), slice(-5, None), slice(5, 2), slice(None, None, -300)):
        assert spilled[some] == values[some]
    assert 500 in spilled
    assert spilled.index(700) == 700
    assert spilled == values
    assert spilled != values[1:]
    assert pickle.loads(pickle.dumps(spilled)) == values
    with pytest.raises(IndexError, match="values have no place 1000: there are 1000"):
        spilled[1000]


def test_readers_of_spilled_values_do_not_disturb_each_other(spilled: SpilledValues) -> None:
    assert [a + b for a, b in zip(spilled, spilled, strict=True)] == [2 * i for i in range(1000)]


def test_sorting_spilled_values_is_stable(spilled: SpilledValues, tmp_path: Path) -> None:
    def order(value: int) -> int:
        return -(value % 7)

    assert list(spilled.sorted(order)) == sorted(range(1000), key=order)
    assert len(files(tmp_path)) == 1


def test_block_files_are_read_from_any_block(tmp_path: Path) -> None:
    file = BlockFile(tmp_path, Spills())
    places = []
    for number in range(3):
        places.append(file.tell())
        file.append([number], None)
    assert list(file.blocks(places[1])) == [[[1], None], [[2], None]]
    file.append([3])
    assert list(file.blocks(places[2])) == [[[2], None], [[3]]]


PROGRAM = """
import random, sys, tempfile
from pathlib import Path
from paibook.runtimes.mapreduce.external import Spills, grouped, in_order

BUDGET = 24 << 20
def blocks():
    random.seed(1)
    for start in range(0, {values}, 20_000):
        yield [{key} for i in range(20_000)], None, [{value} for i in range(20_000)]

def peak():  # of this process alone: getrusage counts the one that started it as well
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

before = peak()
spills = Spills()
with tempfile.TemporaryDirectory() as folder:
    items, _ = grouped(blocks(), BUDGET, Path(folder), spills=spills)
    total = 0
    for key, values in items:
        {use}
assert total == {values}, total
assert spills.runs > 4, spills
print((peak() - before) / BUDGET)
"""
COUNT = "total += sum(1 for value in values)"
SORT = "total += sum(1 for value in in_order(values, lambda value: value[::-1]))"
# About 200 bytes of objects for each value: 800,000 are 160 MB, more than five times the budget.
TEXT = "f'{random.random()} {i} a text that is much longer than the others, to fill memory with'"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize(
    ("key", "value", "use"),
    [
        ("f'k{random.randrange(1 << 30)}'", TEXT, COUNT),
        ("random.randrange(100)", TEXT, COUNT),
        ("random.choice([1, 'a', None, (1, 2)])", TEXT, COUNT),
        ("'hot'", TEXT, COUNT),
        ("'hot'", TEXT, SORT),
    ],
    ids=["many keys", "few keys", "incomparable keys", "one key", "one key, sorted values"],
)
def test_memory_stays_near_the_budget(key: str, value: str, use: str) -> None:
    program = PROGRAM.format(key=key, value=value, use=use, values=800_000)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # The budget, a factor 1.5 for its estimate, and the block being read.
    assert float(done.stdout) < 2


def test_order_may_be_any_callable(tmp_path: Path) -> None:
    order: Callable[[Any], Any] = len
    assert in_order(["bb", "a"], order) == ["a", "bb"]
