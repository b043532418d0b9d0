"""What objects take is told to a factor of about 1.5."""

from __future__ import annotations

import gc
import os
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import pytest

from paibook.runtimes.mapreduce.memory import available, rss, size_of, size_of_groups, size_of_items


@dataclass
class Point:
    x: float
    name: str


@dataclass(slots=True)
class Slim:
    x: float
    name: str


def text(length: int) -> str:
    return "".join(random.choices("abcdefgh", k=length))


MAKERS: dict[str, Callable[[], Any]] = {
    "int": lambda: random.randrange(1 << 40),
    "float": random.random,
    "short text": lambda: text(8),
    "long text": lambda: text(random.randrange(500, 1500)),
    "tuple": lambda: (text(6), random.randrange(1 << 40)),
    "dict": lambda: {"name": text(9), "size": random.random()},
    "list": lambda: [random.random() for _ in range(20)],
    "array": lambda: numpy.arange(50) * 1.5,
    "dataclass": lambda: Point(random.random(), text(5)),
    "slots": lambda: Slim(random.random(), text(5)),
    "bytes": lambda: random.randbytes(40),
}


def measured(make: Callable[[], Any]) -> tuple[Any, int]:
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = make()
        gc.collect()
        return made, tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def is_near(estimate: int, size: int) -> bool:
    return size / 1.5 < estimate < size * 1.5


@pytest.mark.parametrize("name", MAKERS)
def test_items_of_a_list(name: str) -> None:
    random.seed(1)
    values, size = measured(lambda: [MAKERS[name]() for _ in range(2000)])
    assert is_near(size_of_items(values) + 8 * len(values), size)
    assert is_near(size_of(values), size)


@pytest.mark.parametrize("name", ["short text", "int", "tuple", "long text"])
@pytest.mark.parametrize("lengths", ["one", "some", "skewed"])
def test_groups(name: str, lengths: str) -> None:
    random.seed(2)

    def make() -> dict[Any, list[Any]]:
        groups: dict[Any, list[Any]] = {}
        for number in range(1000):
            values = groups.setdefault(MAKERS[name](), [])
            count = {"one": 1, "some": random.randrange(1, 9), "skewed": 5000 if number == 500 else 1}[lengths]
            for _ in range(count):
                values.append(random.randrange(1 << 40))
        return groups

    groups, size = measured(make)
    assert is_near(size_of_groups(groups), size)


def test_shared_objects_count_once() -> None:
    word = text(1000)
    assert size_of([word] * 500) < 20_000
    assert size_of_items([word] * 100) < 2000


def test_containers_hold_what_they_hold() -> None:
    assert size_of({1: text(10_000)}) > 10_000
    assert size_of({text(10_000)}) > 10_000
    assert size_of(numpy.zeros((100, 100))) > 80_000
    assert size_of_groups({}) == 0
    assert size_of_items([]) == 0


def test_what_a_process_takes_and_may_take() -> None:
    taken = rss()
    assert 1 << 20 < taken < 1 << 40
    assert available(0) == 0
    block = bytearray(os.urandom(1 << 20)) * 64
    assert rss() > taken + (32 << 20)
    assert 0 < available(rss() + (1 << 20)) <= 1 << 21
    assert len(block) == 64 << 20


def test_items_that_alternate_are_all_seen() -> None:
    items = [item for i in range(640) for item in ({"m": i}, bytes(1000))]
    assert 0.5 < size_of_items(items, 20) / 640_000 < 2.5
