"""The model beyond map and reduce: stages, named inputs and outputs, counters, resources, bad records, order."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from paibook.clusters.inline import InlineCluster
from paibook.errors import DataError, PlanError, ProgramError, UserCodeError
from paibook.runtimes.mapreduce import collector, limits

IDENTITY = "\ndef reduce(key, values):\n    yield key, values\n"
SECOND = "def reduce2(key, values):\n    yield key, len(values)\n"
NUMBERS = "def map(record):\n    yield record % 3, record\n"


def test_stages_follow_each_other(run: Any) -> None:
    source = """
    def map(record):
        for word in record.split():
            yield word, 1
    def reduce(key, values):
        yield sum(values), key
    def reduce2(key, values):
        yield key, sorted(values)
    """
    assert run.over(source, ["a b a", "c b a"]) == [(1, ["c"]), (2, ["b"]), (3, ["a"])]
    assert [stage["name"] for stage in run.summary["stages"]] == ["map", "reduce", "reduce2"]


def test_a_second_map_takes_the_records_of_the_first_reduce(run: Any) -> None:
    source = """
    def map(record):
        yield record, 1
    def reduce(key, values):
        yield {"word": key, "n": len(values)}
    def map2(record):
        yield record["n"] % 2, record["word"]
    def combine2(key, values):
        yield key, "".join(values)
    def reduce2(key, values):
        yield key, sorted("".join(values))
    """
    assert run.over(source, list("aabbbcd")) == [(0, ["a"]), (1, ["b", "c", "d"])]


def test_each_named_input_has_its_mapper(run: Any) -> None:
    source = """
    def map_users(record):
        yield record["id"], ("user", record["name"])
    def map_orders(record):
        yield record["user"], ("order", record["price"])
    def reduce(key, values):
        names = [v for kind, v in values if kind == "user"]
        for kind, price in values:
            if kind == "order":
                for name in names:
                    yield name, price
    """
    users = [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}]
    orders = [{"user": 1, "price": 3}, {"user": 2, "price": 5}, {"user": 1, "price": 7}, {"user": 9, "price": 1}]
    inputs = [{"variable": "users", "name": "users"}, {"variable": "orders", "name": "orders"}]
    found = run(source, *inputs, variables={"users": users, "orders": orders})
    assert sorted(found) == [("Ada", 3), ("Ada", 7), ("Bob", 5)]


def test_a_mapper_of_no_input_is_refused(run: Any) -> None:
    source = "def map_user(record):\n    yield 1, 1\ndef map(record):\n    yield 1, 1\n" + IDENTITY
    with pytest.raises(ProgramError, match=r"'map_user' is the mapper of no input.*did you mean map_users\?"):
        run(source, {"variable": "users", "name": "users"}, variables={"users": [1]})


def test_records_go_to_named_outputs(run: Any, tmp_path: Path) -> None:
    source = """
    def map(record):
        yield record % 2, record
    def reduce(key, values):
        for value in values:
            if value > 5:
                yield pai.output("large", {"value": value})
            else:
                yield {"value": value}
    """
    outputs = {"large": {"kind": "path", "target": str(tmp_path / "large.jsonl")}}
    found = run.over(source, range(10), out=str(tmp_path / "small.parquet"), outputs=outputs)
    assert sorted(found[""].read()["value"]) == [0, 1, 2, 3, 4, 5]
    assert sorted(found["large"].read()["value"]) == [6, 7, 8, 9]
    with pytest.raises(UserCodeError, match="the output 'large', which the line does not name"):
        run.over(source, range(10))


def test_without_reduce_the_records_of_map_are_the_result(run: Any) -> None:
    source = "reduce = None\ndef map(record):\n    if record % 2:\n        yield {'n': record}\n"
    assert run.over(source, range(6)) == [{"n": 1}, {"n": 3}, {"n": 5}]


@pytest.mark.parametrize("slots", [1, 3])
def test_counters_are_exact_and_hooks_are_called(run: Any, slots: int) -> None:
    run.cluster = InlineCluster(slots)
    source = """
    def setup(task):
        task.seen = 0
    def map(record):
        pai.task().seen += 1
        pai.counter("odd").add(record % 2)
        yield "n", 1
    def cleanup(task):
        if task.stage == "map":
            yield "cleanup", task.seen
    def reduce(key, values):
        yield key, sum(values)
    """
    assert run.over(source.replace("def reduce", "def reduce"), range(25)) == [("cleanup", 25), ("n", 25)]
    assert run.summary["counters"] == {"odd": 12}


def test_resources_are_there(run: Any, tmp_path: Path) -> None:
    (tmp_path / "stop.txt").write_text("the\na\n")
    source = """
    stop = set(pai.resource("stop.txt").read_text().split())
    def map(record):
        assert pai.resource("stop.txt").exists()
        if record not in stop:
            yield record, 1
    """
    assert run.over(
        source + IDENTITY.replace("\n", "\n    "), ["the", "b"], resources=[str(tmp_path / "stop.txt")]
    ) == [("b", [1])]
    with pytest.raises(DataError, match=r"--resource .*none\.txt: there is no such file"):
        run.over(NUMBERS + IDENTITY, [1], resources=[str(tmp_path / "none.txt")])


def test_bad_records_are_skipped_and_kept(run: Any) -> None:
    source = "def map(record):\n    yield 'n', int(record)\ndef reduce(key, values):\n    yield sum(values)"
    items = ["1", "x", "2", "y", "3"]
    assert run.over(source, items, max_bad=2) == [6]
    lines = [json.loads(line) for line in (run.directory / "bad.jsonl").read_text().splitlines()]
    assert {line["record"] for line in lines} == {"x", "y"}
    assert all("ValueError" in line["error"] and "item" in line["place"] for line in lines)
    assert run.summary["bad"]["records"] == 2
    with pytest.raises(DataError, match=r"2 bad records, more than --max-bad 1 allows; the first: .*ValueError"):
        run.over(source, items, max_bad=1)
    with pytest.raises(DataError, match="more than --max-bad 10% allows"):
        run.over(source, items, max_bad=0.1)


def test_a_bad_record_leaves_nothing_behind(run: Any) -> None:
    source = "def map(record):\n    yield 'seen', record\n    if record == 2:\n        raise ValueError\n" + IDENTITY
    assert run.over(source, [1, 2, 3], max_bad=1) == [("seen", [1, 3])]


def test_values_come_in_the_order_asked_for(run: Any) -> None:
    source = NUMBERS + "def order(value):\n    return -value\n" + IDENTITY
    assert run.over(source, range(8)) == [(0, [6, 3, 0]), (1, [7, 4, 1]), (2, [5, 2])]


def test_an_order_is_of_no_use_to_a_declarative_reducer(run: Any) -> None:
    with pytest.raises(UserCodeError, match=r"pai\.Sum\(\) takes values as they come, so that 'order' has nothing"):
        run.over(NUMBERS + "def order(value):\n    return -value\nreduce = pai.Sum()\n", range(8))


def test_the_cell_partitions_by_itself(run: Any) -> None:
    source = NUMBERS + "def partition(key, partitions):\n    return key % partitions\n" + IDENTITY
    assert run.over(source, range(6), reducers=2) == [(0, [0, 3]), (1, [1, 4]), (2, [2, 5])]
    wrong = NUMBERS + "def partition(key, partitions):\n    return partitions\n" + IDENTITY
    with pytest.raises(UserCodeError, match=r"partition\(key, partitions\) returned 2 for the key"):
        run.over(wrong, range(6), reducers=2)


def test_a_partition_may_be_numpy_s_whole_number(run: Any) -> None:
    partition = "import numpy\ndef partition(key, partitions):\n    return numpy.int16(key % 2)\n"
    assert run.over(NUMBERS + partition + IDENTITY, range(6), reducers=2) == [(0, [0, 3]), (1, [1, 4]), (2, [2, 5])]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("key > 0", r"returned False for the key 0; a whole number from 0 to 1 is needed; write int\(...\) around"),
        ("numpy.bool_(key)", r"returned np.False_ for the key 0; a whole number .* write int\(...\) around"),
        ("numpy.float64(0)", r"returned np.float64\(0.0\) for the key 0; a whole number from 0 to 1 is needed"),
        ("None", r"returned None for the key 0; a whole number from 0 to 1 is needed"),
        ("numpy.int64(-1)", r"returned np.int64\(-1\) for the key 0; a whole number from 0 to 1 is needed"),
    ],
)
def test_a_partition_of_another_kind_is_refused(run: Any, made: str, message: str) -> None:
    source = f"import numpy\n{NUMBERS}def partition(key, partitions):\n    return {made}\n{IDENTITY}"
    with pytest.raises(UserCodeError, match=message):
        run.over(source, range(6), reducers=2)


def test_keys_are_sorted_on_request(run: Any) -> None:
    assert [key for key, _ in run.over(NUMBERS + IDENTITY, range(9), sort="desc")] == [2, 1, 0]
    with pytest.raises(UserCodeError, match="--sort: the keys cannot be compared"):
        run.over("def map(record):\n    yield record, 1\n" + IDENTITY, [1, "a"], sort="asc", reducers=1)
    # Each in a partition of its own: among themselves they can be compared.
    by_type = "def partition(key, partitions):\n    return int(isinstance(key, str))\n"
    source = "def map(record):\n    yield record, 1\n" + by_type + IDENTITY
    assert len(run.over(source, [3, "a", 5, "b"], reducers=2)) == 4
    for sort in ("asc", "desc"):
        with pytest.raises(UserCodeError, match="--sort: the keys cannot be compared"):
            run.over(source, [3, "a", 5, "b"], sort=sort, reducers=2)


@pytest.mark.parametrize(
    ("reducer", "expected"),
    [
        ("Sum()", 45),
        ("Count()", 10),
        ("Min()", 0),
        ("Max()", 9),
        ("Mean()", 4.5),
        ("TopK(2)", [9, 8]),
        ("Distinct()", list(range(10))),
    ],
)
def test_declarative_reducers(run: Any, reducer: str, expected: Any) -> None:
    source = f"def map(record):\n    yield 'all', record\n    yield record, record\nreduce = pai.{reducer}\n"
    for slots in (1, 3):
        run.cluster = InlineCluster(slots)
        found = dict(run.over(source, range(10)))
        assert found["all"] == expected
        assert len(found) == 11


@pytest.mark.parametrize("combine", ["", "def combine(key, values):\n    yield key, sum(values)\n"])
def test_a_small_memory_changes_nothing(run: Any, monkeypatch: pytest.MonkeyPatch, combine: str) -> None:
    monkeypatch.setattr("paibook.runtimes.mapreduce.limits.Limits.budget", lambda self: 20_000)
    words = [f"w{i * 7919 % 997}" for i in range(20_000)]
    source = (
        "def map(record):\n    yield record, 1\n" + combine + "def reduce(key, values):\n    yield key, sum(values)\n"
    )
    assert run.over(source, words, reducers=2) == sorted(Counter(words).items())
    assert sum(stage["spilled_bytes"] for stage in run.summary["stages"]) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bad": -1}, "--max-bad"),
        ({"sample": 2}, "--sample"),
        ({"sort": "up"}, "--sort"),
        ({"inputs": [{"table": "x"}]}, "an input is a path, a variable or a run"),
    ],
)
def test_wrong_options_are_named(run: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        run.over(NUMBERS + IDENTITY, [1], **options)


def test_a_sample_is_a_share_of_the_records(run: Any) -> None:
    source = "def map(record):\n    yield 'n', 1\ndef reduce(key, values):\n    yield sum(values)"
    (count,) = run.over(source, range(20_000), sample=0.1)
    assert 1_700 < count < 2_300


def test_the_output_of_a_run_is_an_input(run: Any, tmp_path: Path) -> None:
    run.directory = tmp_path / "runs" / "20260101-000000-mapreduce-abcd"
    run.directory.mkdir(parents=True)
    run.over("reduce = None\ndef map(record):\n    yield {'n': record}\n", range(5), out=str(tmp_path / "five.parquet"))
    (run.directory / "summary.json").write_text(json.dumps(run.summary))
    source = "def map(record):\n    yield 'n', record['n']\ndef reduce(key, values):\n    yield sum(values)"
    assert run(source, {"run": "abcd"}) == [10]
    with pytest.raises(DataError, match="no finished run is called so"):
        run(source, {"run": "nothing"})


def test_a_dask_collection_is_computed_where_it_lies(run: Any) -> None:
    bag = pytest.importorskip("dask.bag").from_sequence(range(10), npartitions=3)
    source = "def map(record):\n    yield record % 2, record\ndef reduce(key, values):\n    yield key, sum(values)"
    assert run.over(source, bag.map(lambda n: n * 2).map(lambda n: n // 2)) == [(0, 20), (1, 25)]
    assert run.summary["stages"][0]["tasks"] == 3


@pytest.mark.parametrize("max_bad", [None, 1])
@pytest.mark.parametrize("records", [range(3), range(1)])
def test_a_pair_may_be_a_list_that_is_filled_anew(run: Any, records: range, max_bad: int | None) -> None:
    source = """
    pair = [None, None]
    def map(record):
        for i in range(30):
            pair[0], pair[1] = i, (record, i)
            yield pair
    def reduce(key, values):
        yield key, values
    """
    found = run.over(source, records, max_bad=max_bad)
    assert found == [(i, [(record, i) for record in records]) for i in range(30)]


@pytest.mark.parametrize("combine", ["", "def combine(key, values):\n    yield key, sum(values)\n"])
def test_a_record_of_very_many_pairs_is_not_held_whole(run: Any, monkeypatch: pytest.MonkeyPatch, combine: str) -> None:
    held = []
    measure = collector.Collector._measure
    monkeypatch.setattr(collector.Collector, "_measure", lambda self: (measure(self), held.append(self._size))[0])
    monkeypatch.setattr(limits.Limits, "budget", lambda self: 1_000_000)
    source = (
        "def map(record):\n    for i in range(record):\n        yield i, 1\n"
        + combine
        + "def reduce(key, values):\n    yield key, sum(values)\n"
    )
    assert run.over(source, [200_000]) == [(i, 1) for i in range(200_000)]
    assert max(held) < 1_500_000
    assert run.summary["stages"][0]["spilled_bytes"] > 0


def test_many_pairs_of_few_keys_in_one_record_are_combined_on_the_way(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "PENDING", 20_000)
    source = """
    def map(record):
        for i in range(record):
            yield i % 50, 1
    def combine(key, values):
        yield key, sum(values)
    def reduce(key, values):
        yield key, (len(values), sum(values))
    """
    found = dict(run.over(source, [200_000]))
    assert {total for _, total in found.values()} == {4000}
    assert max(count for count, _ in found.values()) <= 200_000 // 20_000


NO_PAIRS = [("b'ab'", "bytes"), ("{'a', 'b'}", "set"), ("{'a': 1, 'b': 2}", "dict"), ("'ab'", "str")]


@pytest.mark.parametrize(("made", "kind"), NO_PAIRS)
@pytest.mark.parametrize(
    ("source", "function", "options"),
    [
        ("def map(record):\n    yield MADE\n    yield 1, 2\n" + IDENTITY, r"map\(record\)", {}),
        ("def map(record):\n    yield MADE\n    yield 1, 2\n" + IDENTITY, r"map\(record\)", {"max_bad": 0}),
        (NUMBERS + "def combine(key, values):\n    yield MADE\n" + IDENTITY, r"combine\(key, values\)", {}),
        (NUMBERS + "def reduce(key, values):\n    yield MADE\n    yield 1, 2\n" + SECOND, r"reduce\(key, values\)", {}),
        (NUMBERS + IDENTITY + "def map2(record):\n    yield MADE\n    yield 1, 2\n" + SECOND, r"map2\(record\)", {}),
        (NUMBERS + "def cleanup(task):\n    yield MADE\n    yield 1, 2\n" + IDENTITY, r"cleanup\(task\)", {}),
    ],
    ids=["map", "watched", "combine", "reduce", "map2", "cleanup"],
)
def test_only_tuples_and_lists_are_pairs(
    run: Any, source: str, function: str, options: dict[str, Any], made: str, kind: str
) -> None:
    message = rf"{function} yielded .* \({kind}\), which is not a \(key, value\) pair; write `yield key, value`"
    with pytest.raises((UserCodeError, DataError), match=message):
        run.over(source.replace("MADE", made), range(90), **options)


def test_what_is_no_pair_deep_in_a_record_is_located(run: Any) -> None:
    source = """
    def map(record):
        for i in range(record):
            yield i, 1
        if record == 7:
            yield i
    """ + IDENTITY.replace("\n", "\n    ")
    with pytest.raises(UserCodeError, match=r"yielded 6 \(int\), which is not a \(key, value\) pair") as caught:
        run.over(source, [20_000, 7, 30_000])
    assert caught.value.where.endswith("item 1")
