"""Equal keys go to one partition, whatever process made them."""

from __future__ import annotations

import datetime
import enum
import json
import os
import subprocess
import sys
import uuid
from collections import namedtuple
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any

import numpy
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.runtimes.mapreduce.partition import partitions_of, stable_hash

Pair = namedtuple("Pair", "a b")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Word(str):
    pass


@dataclass(frozen=True)
class Point:
    x: float
    name: str


class CaseBlind:
    """Equality of its own, which only it can know."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CaseBlind) and self.text.lower() == other.text.lower()

    def __hash__(self) -> int:
        return hash(self.text.lower())


utc, east = datetime.UTC, datetime.timezone(datetime.timedelta(hours=2))
EQUAL: list[tuple[Any, ...]] = [
    (1, 1.0, True, Decimal(1), Fraction(1), 1 + 0j, numpy.int8(1), numpy.float32(1), numpy.bool_(True)),
    (0, -0.0, False),
    (2**70, float(2**70)),
    ("a", Word("a"), numpy.str_("a")),
    (b"a", numpy.bytes_(b"a")),
    ((1, "a"), (1.0, Word("a")), Pair(True, "a")),
    (frozenset([1, 2]), frozenset([2.0, 1.0])),
    (Point(1, "a"), Point(1.0, "a")),
    (CaseBlind("A"), CaseBlind("a")),
    (datetime.datetime(2020, 1, 1, 12, tzinfo=utc), datetime.datetime(2020, 1, 1, 14, tzinfo=east)),
    (datetime.datetime(2020, 1, 1), pandas.Timestamp("2020-01-01"), numpy.datetime64("2020-01-01T00", "h")),
    (datetime.date(2020, 1, 1), numpy.datetime64("2020-01-01", "D"), numpy.datetime64("2020-01-01", "ns")),
    (datetime.timedelta(seconds=1), numpy.timedelta64(1, "s"), numpy.timedelta64(1000, "ms")),
    (datetime.timedelta(hours=24), datetime.timedelta(days=1), pandas.Timedelta(days=1)),
    (float("nan"), float("nan"), numpy.float64("nan")),
]


@pytest.mark.parametrize("keys", EQUAL, ids=lambda keys: repr(keys[0])[:30])
def test_equal_keys_meet(keys: tuple[Any, ...]) -> None:
    assert len({stable_hash(key) for key in keys}) == 1


keys = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(keys, keys)
def test_keys_that_are_equal_hash_equal(one: Any, other: Any) -> None:
    if one == other:
        assert stable_hash(one) == stable_hash(other)
    assert 0 <= stable_hash(one) < 2**32


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters()))  # lone surrogates included
    | st.lists(st.integers())
    | st.lists(st.integers(2**61 - 3, 2**61 + 3) | st.integers(-(2**61) - 3, -(2**61) + 3))
    | st.lists(st.floats())
    | st.lists(st.integers().map(float))
    | st.lists(st.sampled_from(["a", "é", 1, None, ("a", 1)]), min_size=30)
    | st.lists(st.tuples(st.text(), st.tuples(st.integers(), keys))),
    st.integers(1, 9),
)
def test_the_fast_way_by_columns_agrees(all_keys: list[Any], count: int) -> None:
    assert partitions_of(all_keys, count) == [stable_hash(key) % count for key in all_keys]


SAMPLE = (
    "['a', b'b', 1, 2.5, None, ..., ('a', 1, ('b',)), frozenset(['a', 'b', 'c']), int, len, json.dumps,"
    " datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 1), datetime.time(1, 2), uuid.UUID(int=7),"
    " PurePosixPath('/a/b'), complex(1, 2), signal.SIGINT, re.RegexFlag.A, Decimal('1.5'), HTTPStatus.OK]"
)
PROGRAM = f"""
import datetime, json, re, signal, uuid
from decimal import Decimal
from http import HTTPStatus
from pathlib import PurePosixPath
from paibook.runtimes.mapreduce.partition import stable_hash
print(json.dumps([stable_hash(key) for key in {SAMPLE}]))
"""


def test_processes_with_different_seeds_agree() -> None:
    outputs = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True)
        outputs.append(json.loads(done.stdout))
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0])) == len(outputs[0])


def test_numbers_and_words_spread_evenly() -> None:
    for keys in (range(0, 80_000, 8), [f"word{i}" for i in range(10_000)], [(i, "x") for i in range(10_000)]):
        counts = [0] * 8
        for number in partitions_of(list(keys), 8):
            counts[number] += 1
        assert 900 < min(counts) <= max(counts) < 1600


def test_enum_members_and_singletons_are_keys() -> None:
    assert stable_hash(Colour.RED) != stable_hash(Colour.BLUE)
    assert stable_hash(uuid.UUID(int=1)) == stable_hash(uuid.UUID(int=1))
    assert stable_hash(PurePosixPath("a")) == stable_hash(PurePosixPath("a"))


def test_keys_that_equal_only_themselves_are_refused() -> None:
    class Thing:
        pass

    with pytest.raises(TypeError, match="keys of type Thing equal only themselves"):
        partitions_of([Thing()], 2)
