"""Declarative reducers give the same results key by key, combined in any pieces, and on columns."""

from __future__ import annotations

import datetime
import itertools
import math
import pickle
from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.errors import ProgramError
from paibook.runtimes.mapreduce.mistakes import WrongYield
from paibook.runtimes.mapreduce.pairs import lists_of
from paibook.runtimes.mapreduce.reducers import (
    Count,
    CountDistinct,
    Distinct,
    Max,
    Mean,
    Min,
    Partial,
    Reducer,
    Sum,
    TopK,
)
from paibook.runtimes.mapreduce.table_shuffle import concat_tables, pack_table, partition_table, unpack_table

Oracle = Callable[[list[Any]], Any]


def known(values: list[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def numbers(values: list[Any]) -> list[Any]:
    return [value for value in known(values) if value == value]


def top(values: list[Any], k: int, largest: bool) -> list[Any]:
    strange = [value for value in known(values) if value != value]
    return (sorted(numbers(values), reverse=largest) + strange)[:k]


def different(values: list[Any]) -> list[Any]:
    made: list[Any] = []
    for value in known(values):
        if not any(same(value, other) for other in made):
            made.append(value)
    return made


def mean(values: list[Any]) -> Any:
    return sum(known(values)) / len(known(values)) if known(values) else None


ORACLES: list[tuple[Reducer, Oracle]] = [
    (Sum(), lambda values: sum(known(values)) if known(values) else None),
    (Count(), len),
    (Min(), lambda values: min(numbers(values) or known(values)[:1], default=None)),
    (Max(), lambda values: max(numbers(values) or known(values)[:1], default=None)),
    (Mean(), mean),
    (TopK(2), lambda values: top(values, 2, True)),
    (TopK(3, largest=False), lambda values: top(values, 3, False)),
    (Distinct(), different),
    (CountDistinct(), lambda values: len(different(values))),
]
each = pytest.mark.parametrize(("reducer", "oracle"), ORACLES, ids=lambda value: repr(value)[:20])

keys = st.integers(-2, 3) | st.none()
integers = st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)
# Halves add up without rounding, so that the order of adding does not show.
floats = st.integers(-20, 20).map(lambda number: number / 2) | st.just(math.nan) | st.just(-0.0)
columns = st.sampled_from([integers, floats, st.booleans()]).flatmap(
    lambda values: st.lists(st.tuples(keys, values | st.none()), max_size=40)
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-12)
    return bool(a == b)


def expected(pairs: Sequence[tuple[Any, Any]], oracle: Oracle) -> dict[Any, Any]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return {key: oracle(values) for key, values in groups.items()}


def assert_same(found: dict[Any, Any], wanted: dict[Any, Any]) -> None:
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert same(found[key], value), (key, found[key], value)


def pieces(items: list[Any], cuts: list[int]) -> list[list[Any]]:
    places = sorted({min(cut, len(items)) for cut in cuts} | {0, len(items)})
    return [items[a:b] for a, b in itertools.pairwise(places)]


def combined(reducer: Reducer, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """As map tasks do: lone values stay as they are, and what is left travels."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    made = []
    for key, values in groups.items():
        made += list(reducer.combine(key, values)) if len(values) > 1 else [(key, values[0])]
    return pickle.loads(pickle.dumps(made))


def reduced(reducer: Reducer, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return dict(record for key, values in groups.items() for record in reducer.reduce(key, values))


def table(pairs: list[tuple[Any, Any]]) -> pa.Table:
    values = [value for _, value in pairs]
    return pa.table({"k": [key for key, _ in pairs], "v": values})


@each
@settings(max_examples=60)
@given(pairs=columns, cuts=st.lists(st.integers(0, 40), max_size=3))
def test_records_in_any_pieces(reducer: Reducer, oracle: Oracle, pairs: list[Any], cuts: list[int]) -> None:
    once = [pair for piece in pieces(pairs, cuts) for pair in combined(reducer, piece)]
    wanted = expected(pairs, oracle)
    assert_same(reduced(reducer, pairs), wanted)
    assert_same(reduced(reducer, once), wanted)
    assert_same(reduced(reducer, combined(reducer, once)), wanted)


@each
@settings(max_examples=60)
@given(pairs=columns, cuts=st.lists(st.integers(0, 40), max_size=3), buckets=st.integers(1, 5))
def test_columns_in_any_pieces(
    reducer: Reducer, oracle: Oracle, pairs: list[Any], cuts: list[int], buckets: int
) -> None:
    shuffled: list[list[pa.Table]] = [[] for _ in range(buckets)]
    for piece in pieces(pairs, cuts):
        for bucket, some in enumerate(partition_table(table(piece), ["k"], buckets)):
            if some is not None:
                shuffled[bucket].append(unpack_table(pack_table(reducer.partial(some, ["k"]))))
    found: dict[Any, Any] = {}
    for tables in filter(None, shuffled):
        made = reducer.final(concat_tables(tables), ["k"])
        assert made.column_names == ["k", "v"]
        assert not found.keys() & set(made.column("k").to_pylist())  # a key is in one bucket
        found.update(zip(*lists_of(made, ["k"]), strict=True))
    assert_same(found, expected(pairs, oracle))


@each
@settings(max_examples=60)
@given(pairs=columns, cuts=st.lists(st.integers(0, 40), max_size=2), worthwhile=st.sampled_from([0.0, 0.5, 1.0]))
def test_columns_combined_where_it_pays(
    reducer: Reducer, oracle: Oracle, pairs: list[Any], cuts: list[int], worthwhile: float
) -> None:
    shuffled: list[list[pa.Table]] = [[] for _ in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paibook.runtimes.mapreduce.reduction.ENOUGH", 1)
        patch.setattr("paibook.runtimes.mapreduce.reduction.WORTHWHILE", worthwhile)
        for piece in pieces(pairs, cuts):
            for bucket, some in enumerate(reducer.shuffled(table(piece), ["k"], 3)):
                shuffled[bucket] += [] if some is None else [some]
    made = [reducer.final(concat_tables(tables), ["k"]) for tables in shuffled if tables]
    found = dict(pair for some in made for pair in zip(*lists_of(some, ["k"]), strict=True))
    assert_same(found, expected(pairs, oracle))


def test_rows_that_share_no_keys_are_not_combined() -> None:
    rows = pa.table({"k": range(0, 1_600_000, 16), "v": [1] * 100_000})
    lone = Mean().shuffled(rows, ["k"], 4)
    assert all(some is not None and some.column_names == ["k", "v", "v (count)"] for some in lone)
    twice = [some.num_rows for some in Mean().shuffled(pa.concat_tables([rows, rows]), ["k"], 4) if some is not None]
    assert twice[0] < 26_000  # each key once
    assert min(twice[1:]) > 49_000


def test_rows_whose_keys_lie_close_together_are_combined_before_they_are_cut() -> None:
    rows = pa.table({"k": list(range(20_000)) * 2, "v": [1] * 40_000})
    made = [some for some in Mean().shuffled(rows, ["k"], 4) if some is not None]
    assert sum(some.num_rows for some in made) == 20_000
    assert Mean().final(concat_tables(made), ["k"]).column("v").to_pylist() == [1.0] * 20_000


@each
@given(pairs=columns, place=st.integers(0, 40))
def test_a_column_s_states_and_raw_values_meet(reducer: Reducer, oracle: Oracle, pairs: list[Any], place: int) -> None:
    front, back = pairs[:place], pairs[place:]
    states = list(zip(*reducer.states(reducer.partial(table(front), ["k"]), ["k"]), strict=True)) if front else []
    assert_same(reduced(reducer, states + back), expected(pairs, oracle))


@pytest.mark.parametrize("total", [2**63, -(2**63) - 1, 2**80])
def test_sums_beyond_64_bits_are_exact(total: int) -> None:
    values = [total // 2**20] * 2**20 if total == 2**80 else [total // 2, total - total // 2]
    made = Sum().final(Sum().partial(pa.table({"k": [1] * len(values), "v": values}), ["k"]), ["k"])
    assert made.column("v").to_pylist() == [Decimal(total)]
    assert lists_of(made, ["k"]) == ([1], [total])
    assert list(Sum().reduce(1, values)) == [(1, total)]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Decimal(9 * 10**37), pa.decimal128(38, 0)),
        (Decimal(-9 * 10**35).scaleb(-2), pa.decimal128(38, 4)),
        (Decimal("9999999.99"), pa.decimal32(9, 2)),
        (Decimal("9.99e15").quantize(Decimal("0.01")), pa.decimal64(18, 2)),
    ],
    ids=str,
)
def test_sums_of_decimals_beyond_their_type_are_exact(value: Decimal, kind: pa.DataType) -> None:
    rows = pa.table({"k": [1] * 100, "v": pa.array([value] * 100, kind)})
    for reducer, factor in ((Sum(), 100), (Mean(), 1)):
        for state in (reducer.partial, reducer.lifted):
            made = reducer.final(concat_tables([state(rows.slice(0, 50), ["k"]), state(rows.slice(50), ["k"])]), ["k"])
            ((found,),) = lists_of(made, ["k"])[1:]
            assert found == factor * value or (factor == 1 and math.isclose(found, value))


def test_sums_of_one_batch_beyond_64_bits_and_another_below_meet() -> None:
    great, small = (Sum().partial(pa.table({"k": [1, 1], "v": values}), ["k"]) for values in ([2**63 - 1, 2], [-5, 1]))
    assert lists_of(Sum().final(concat_tables([small, great]), ["k"]), ["k"]) == ([1], [2**63 - 3])


def test_a_batch_of_nulls_alone_meets_any_other() -> None:
    nulls = pa.table({"k": pa.nulls(2), "v": pa.nulls(2)})
    words = pa.table({"k": ["a", None], "v": ["x", "y"]})
    made = Max().final(concat_tables([Max().partial(nulls, ["k"]), Max().partial(words, ["k"])]), ["k"])
    assert made.to_pydict() == {"k": [None, "a"], "v": ["y", "x"]}


def test_each_column_is_reduced_on_its_own() -> None:
    rows = pa.table({"a": [1, 2, 1], "k": ["x", "x", "y"], "b": [1.5, 2.5, 4.0]})
    assert Mean().final(Mean().partial(rows, ["k"]), ["k"]).to_pydict() == {
        "k": ["x", "y"],
        "a": [1.5, 1.0],
        "b": [2.0, 4.0],
    }


def test_several_key_columns() -> None:
    rows = pa.table({"a": [1, 1, 2], "b": ["x", "x", "x"], "v": [1, 2, 3]})
    made = Sum().final(Sum().partial(rows, ["a", "b"]), ["a", "b"])
    assert lists_of(made, ["a", "b"]) == ([(1, "x"), (2, "x")], [3, 3])


def test_large_tables_of_many_keys_are_cut_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paibook.runtimes.mapreduce.aggregates.LARGE", 100)
    monkeypatch.setattr("paibook.runtimes.mapreduce.aggregates._SAMPLE", 64)
    found = [number * 7919 % 1000 for number in range(5000)]
    made = Sum().partial(pa.table({"k": found, "v": [1] * 5000}), ["k"])
    assert sorted(zip(*lists_of(made, ["k"]), strict=True)) == [(number, 5) for number in range(1000)]
    assert made.column("k").to_pylist() != list(dict.fromkeys(found))


@pytest.mark.parametrize(
    "values",
    [
        pa.array([3, None, 1], pa.int8()),
        pa.array([3, None, 1], pa.uint64()),
        pa.array([3, None, 1], pa.float32()),
        pa.array([3, None, 1], pa.decimal128(10, 2)),
        pa.array([3, None, 1], pa.duration("us")),
        pa.nulls(3),
    ],
    ids=lambda values: str(values.type),
)
def test_types_of_numbers(values: pa.Array) -> None:
    rows = pa.table({"k": [1, 1, 1], "v": values})
    for reducer, oracle in ORACLES[:4]:
        made = reducer.final(reducer.partial(rows, ["k"]), ["k"]).column("v").to_pylist()
        given_ = values.to_pylist()
        total = known(given_)[0] + known(given_)[1] if known(given_) else None
        assert made == [total if isinstance(reducer, Sum) else oracle(given_)]


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["b", None, "a", "b"]),
        pa.array(["b", None, "a", "b"], pa.string_view()),
        pa.array(["b", None, "a", "b"]).dictionary_encode(),
        pa.array([datetime.date(2020, 1, day) for day in (2, 1, 3, 2)]),
        pa.array([5, None, 1, 5], pa.duration("s")),
        pa.array([Decimal("1.50"), None, Decimal("0.25"), Decimal("1.50")]),
    ],
    ids=lambda values: str(values.type)[:20],
)
def test_types_with_an_order(values: pa.Array) -> None:
    rows = pa.table({"k": [1, 1, 1, 1], "v": values})
    for reducer, oracle in ORACLES:
        if not isinstance(reducer, (Sum, Mean)):
            made = reducer.final(concat_tables([reducer.partial(rows.slice(0, 2), ["k"]),
                                                reducer.partial(rows.slice(2), ["k"])]), ["k"])  # fmt: skip
            assert made.column("v").to_pylist() == [oracle(values.to_pylist())], reducer


@pytest.mark.parametrize(
    "found",
    [
        pa.array([0.0, -0.0, math.nan, -math.nan], pa.float32()),
        pa.array(["a", "a", None, None]).dictionary_encode(),
        pa.array([1, 1, 2, 2], pa.duration("s")),
        pa.array(["a", "a", "b", "b"], pa.string_view()),
        pa.nulls(4),
    ],
    ids=lambda values: str(values.type)[:20],
)
def test_types_of_keys(found: pa.Array) -> None:
    made = Count().partial(pa.table({"k": found, "v": [1, 2, 3, 4]}), ["k"])
    assert made.column("v").to_pylist() == ([4] if found.null_count == 4 else [2, 2])
    assert made.column("k").to_pylist()[0] == found.to_pylist()[0]


@pytest.mark.parametrize("reducer", [reducer for reducer, _ in ORACLES], ids=repr)
def test_no_rows(reducer: Reducer) -> None:
    rows = pa.table({"k": pa.array([], pa.string()), "v": pa.array([], pa.int64())})
    made = reducer.final(reducer.partial(rows, ["k"]), ["k"])
    assert made.num_rows == 0
    assert made.column_names == ["k", "v"]


def test_durations_add_up() -> None:
    hour = datetime.timedelta(hours=1)
    assert list(Sum().reduce("k", [hour, None, hour])) == [("k", 2 * hour)]
    assert list(Mean().reduce("k", [hour, 3 * hour])) == [("k", 2 * hour)]


seconds = [datetime.timedelta(seconds=n) for n in (1, 2, 4, -3, 5, 86400)]
cents = [Decimal(text) for text in ("0.10", "2", "-3.33", "1E+15", "0.01", "7.50")]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        *((seconds, pa.duration(unit)) for unit in ("s", "ms", "us", "ns")),
        (cents, pa.decimal128(20, 2)),
        (cents, pa.decimal256(40, 5)),
        ([Decimal(n) for n in (1, 2, 4, 5, 6, 8)], pa.decimal128(5, 0)),
    ],
    ids=lambda value: "" if isinstance(value, list) else str(value),
)
def test_means_of_columns_are_those_of_their_values(values: list[Any], kind: pa.DataType) -> None:
    column = pa.array([*values, None, None], kind)
    rows = pa.table({"k": [1, 1, 1, 2, 3, 3, 2, 4], "v": column})
    pairs = list(zip(rows["k"].to_pylist(), column.to_pylist(), strict=True))
    wanted = {key: Mean()._result(Mean()._lifted([v for k, v in pairs if k == key])) for key in (1, 2, 3, 4)}
    for state in (Mean().partial, Mean().lifted):
        states = [state(rows.slice(0, 4), ["k"]), state(rows.slice(4), ["k"])]
        found, means = lists_of(Mean().final(concat_tables(states), ["k"]), ["k"])
        assert dict(zip(found, means, strict=True)) == wanted
        assert {type(mean) for mean in means} == {type(wanted[1]), type(None)}


@pytest.mark.parametrize("value", ["a", (1, 2), [1]])
def test_what_cannot_be_added_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match=f"add numbers; got {type(value).__name__}"):
        list(Sum().reduce("k", [value, value]))


@pytest.mark.parametrize("reducer", [Sum(), Mean()])
def test_columns_that_cannot_be_added_are_named(reducer: Reducer) -> None:
    with pytest.raises(WrongYield, match="add numbers; this column is of type string"):
        reducer.partial(pa.table({"k": [1], "v": ["a"]}), ["k"])


def test_columns_without_an_order_are_named() -> None:
    rows = pa.table({"k": [1], "v": [[1]]})
    with pytest.raises(WrongYield, match="there is no such aggregate: min of list"):
        Min().partial(rows, ["k"])
    with pytest.raises(WrongYield, match="cannot put list"):
        TopK(1).partial(rows, ["k"])


def test_a_table_of_keys_alone_is_refused() -> None:
    with pytest.raises(WrongYield, match=r"pai.Count\(\) reduces the columns beside the key's"):
        Count().partial(pa.table({"k": [1]}), ["k"])


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_top_k_of_nothing_is_refused(k: Any) -> None:
    with pytest.raises(ProgramError, match="a whole number, 1 or more"):
        TopK(k)


def test_top_k_of_tuples() -> None:
    assert list(TopK(2).reduce("u", [(0.5, "a"), (0.9, "b"), (0.7, "c")])) == [("u", [(0.9, "b"), (0.7, "c")])]


def test_names() -> None:
    assert [repr(reducer) for reducer, _ in ORACLES[:7]] == [
        "pai.Sum()",
        "pai.Count()",
        "pai.Min()",
        "pai.Max()",
        "pai.Mean()",
        "pai.TopK(2)",
        "pai.TopK(3, largest=False)",
    ]
    assert repr(Partial(3)) == "Partial(3)"
