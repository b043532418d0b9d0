"""MapReduce from cell to result, on the inline cluster."""

from __future__ import annotations

import os
import re
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paibook.clusters.inline import InlineCluster
from paibook.errors import DataError, PlanError, ProgramError, RunCancelled, UserCodeError
from paibook.runtimes.mapreduce import collector
from paibook.runtimes.mapreduce.driver import Driver

WORDS = """
def map(record):
    for word in record.split():
        yield word, 1

def reduce(key, values):
    yield {"word": key, "n": sum(values)}
"""
COMBINE = """
def combine(key, values):
    yield key, sum(values)
"""
PAIRS = """
def map(record):
    yield record
"""
TOTAL = """
def reduce(key, values):
    yield key, sum(values)
"""
IDENTITY = """
def reduce(key, values):
    yield key, values
"""


def test_word_count(run: Any, files: Callable[..., list[Path]]) -> None:
    files(a="b a b\nc a\n", b="b\n\nz")
    expected = [{"word": w, "n": n} for w, n in [("a", 2), ("b", 3), ("c", 1), ("z", 1)]]
    assert run(WORDS, run.directory / "corpus/*.txt") == expected
    assert run(WORDS + COMBINE, run.directory / "corpus") == expected
    assert run(WORDS, run.directory / "corpus", **{"as": "dataframe"}).to_dict("records") == expected


# Sums of floats depend on their order, so numbers here are whole; order itself is checked with lists of values.
pairs = st.lists(
    st.tuples(st.sampled_from(["", "a", "b", "ä", 1, 1.0, True, None, (1, "x"), 7]), st.integers()), max_size=40
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(items=pairs, slots=st.integers(1, 5), reducers=st.none() | st.integers(1, 7), pending=st.integers(1, 20))
def test_any_cut_gives_what_one_process_gives(
    run: Any, items: list[Any], slots: int, reducers: int | None, pending: int
) -> None:
    oracle: dict[Any, list[int]] = {}
    for key, value in items:
        oracle.setdefault(key, []).append(value)
    run.cluster = InlineCluster(slots)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collector, "PENDING", pending)
        found = run.over(PAIRS + IDENTITY, items, reducers=reducers)
        totals = run.over(PAIRS + COMBINE + TOTAL, items, reducers=reducers)
    assert len(found) == len(oracle)
    assert dict(found) == oracle
    assert len(totals) == len(oracle)
    assert dict(totals) == {key: sum(values) for key, values in oracle.items()}


@pytest.mark.parametrize("slots", [1, 2, 7])
@pytest.mark.parametrize("reducers", [None, 1, 3])
def test_the_order_is_that_of_the_keys(run: Any, slots: int, reducers: int | None) -> None:
    run.cluster = InlineCluster(slots)
    items = [f"{i * 7919 % 100:02}" for i in range(100)]
    source = (
        "def map(record):\n    yield record, 1\ndef reduce(key, values):\n    yield key\n    if key < '50': yield key"
    )
    expected = sorted(items + [i for i in items if i < "50"])
    assert run.over(source, items, reducers=reducers) == expected


def test_keys_that_cannot_be_compared(run: Any) -> None:
    source = "def map(record):\n    yield record, 1\ndef reduce(key, values):\n    yield key"
    items = [1, "a", None, (1,), "b", 2]
    for _ in range(2):
        assert sorted(map(repr, run.over(source, items))) == sorted(map(repr, items))


def test_several_inputs_keep_their_order(run: Any, files: Callable[..., list[Path]]) -> None:
    one, two = files(one="1\n2\n", two="5\n6\n")
    source = "def map(record):\n    yield 'all', str(record)\ndef reduce(key, values):\n    yield ' '.join(values)"
    assert run(source, two, {"variable": "mine"}, one, variables={"mine": [3, 4]}) == ["5 6 3 4 1 2"]


def test_pushed_variables_hyperparameters_and_paibook(run: Any) -> None:
    source = """
    def map(record):
        yield len(pai.__version__) > 0, record * factor * hp.scale
    def reduce(key, values):
        pai.log(step=1, total=sum(values))
        yield values
    """
    found = run.over(source, [1, 2], variables={"factor": 10}, push=("factor",), hp={"scale": 2})
    assert found == [[20, 40]]
    assert [m.value for event in run.events if event.kind == "metric" for m in event.data] == [60.0]


def test_variables_that_were_not_pushed_are_not_there(run: Any) -> None:
    with pytest.raises(UserCodeError, match="NameError"):
        run.over("def map(record):\n    yield items, 1\ndef reduce(key, values):\n    yield key", [1])


def test_classes_of_the_cell_are_keys_and_records(run: Any) -> None:
    source = """
    from dataclasses import dataclass
    @dataclass(frozen=True)
    class Point:
        x: int
    def map(record):
        yield Point(record % 3), record
    def reduce(key, values):
        yield key, isinstance(key, Point), len(values)
    """
    found = run.over(source, range(9))
    assert sorted((key.x, same, count) for key, same, count in found) == [(0, True, 3), (1, True, 3), (2, True, 3)]


def test_prints_and_progress_are_reported(run: Any) -> None:
    run.over(WORDS.replace("for word", "print('got', record)\n    for word"), ["a b", "c"], reducers=2)
    said = "".join(event.data for event in run.events if event.kind == "stdout")
    assert {"got a b", "got c"} <= set(said.splitlines())
    assert (run.progress[0].stage, run.progress[0].done) == ("map", 0)
    last = {p.stage: (p.done, p.total) for p in run.progress}
    assert last == {"map": (2, 2), "reduce": (2, 2)}


def test_an_empty_input_gives_an_empty_result(run: Any, tmp_path: Path) -> None:
    assert run.over(WORDS, []) == []
    result = run.over(WORDS, [], out=str(tmp_path / "out.parquet"))
    assert (result.rows, len(result.read())) == (0, 0)


# Output datasets


def test_a_dataset_holds_every_record_once(run: Any, tmp_path: Path) -> None:
    words = [f"w{i % 50} w{i % 7}" for i in range(300)]
    counts = Counter(word for line in words for word in line.split())
    for suffix in ("parquet", "jsonl", "csv"):
        result = run.over(WORDS + COMBINE, words, out=str(tmp_path / f"out.{suffix}"), reducers=5)
        assert dict(result.read()[["word", "n"]].itertuples(index=False)) == counts
        assert result.rows == len(counts)
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "out.jsonl", "out.parquet"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_partitions_of_different_columns_get_one_schema(run: Any, tmp_path: Path, suffix: str) -> None:
    source = """
    def map(record):
        yield record, 1
    def reduce(key, values):
        yield {"key": key, "x": key if key % 2 else key / 4, **({"extra": "007"} if key == 3 else {})}
    """
    frame = run.over(source, range(8), out=str(tmp_path / f"out.{suffix}"), reducers=8).read().sort_values("key")
    assert frame["x"].tolist() == [0, 1, 0.5, 3, 1, 5, 1.5, 7]
    assert frame["extra"].dropna().tolist() == ["007" if suffix == "parquet" else 7]


def test_an_output_that_exists_is_refused_and_kept(run: Any, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    first = run.over(WORDS, ["a"], out=str(target))
    with pytest.raises(DataError, match=r"out\.parquet exists.*--overwrite"):
        run.over(WORDS, ["b"], out=str(target))
    with pytest.raises(UserCodeError, match="ZeroDivisionError"):
        run.over(WORDS.replace("sum(values)", "1 / 0"), ["b"], out=str(target), overwrite=True)
    assert first.read()["word"].tolist() == ["a"]
    assert os.listdir(tmp_path) == ["out.parquet"]
    assert run.over(WORDS, ["b"], out=str(target), overwrite=True).read()["word"].tolist() == ["b"]
    assert os.listdir(tmp_path) == ["out.parquet"]


def test_a_dataset_can_be_the_next_input(run: Any, tmp_path: Path) -> None:
    run.over(WORDS, ["a b", "b"], out=str(tmp_path / "out.parquet"))
    source = "def map(record):\n    yield record['n'], record['word']\ndef reduce(key, values):\n    yield key, values"
    assert run(source, tmp_path / "out.parquet") == [(1, ["a"]), (2, ["b"])]


# Programs that are wrong


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def map(record):\n    yield 1, 2", "needs a function named 'reduce'"),
        (
            "def map():\n    yield 1, 2\ndef reduce(key, values): yield 1",
            r"calls map\(record\); the cell defines map\(\)",
        ),
        ("def map(record): yield 1, 2\ndef reduce(key): yield 1", r"calls reduce\(key, values\)"),
        (WORDS + "\ndef combine(key): yield 1, 2", r"calls combine\(key, values\)"),
    ],
)
def test_programs_are_checked_before_anything_runs(run: Any, source: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        run.over(source, [1])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("yield record", r"map\(record\) yielded 'cherry' \(str\), which is not a \(key, value\) pair"),
        ("yield record[:2]", r"yielded 'ch' \(str\), which is not a \(key, value\) pair"),
        ("yield 1, 2, 3", r"yielded \(1, 2, 3\) \(tuple\), which is not"),
        ("yield [record], 1", r"yielded the key \['cherry'\] \(list\), which cannot be hashed"),
        ("yield (1, {record}), 1", r"which cannot be hashed \(unhashable type: 'set'\)"),
        ("pass", r"map\(record\) returned None where an iterable .* did you forget to yield\?"),
        ("return record, 1", r"map\(record\) returned \('cherry', 1\) \(tuple\)"),
        ("return {record: 1}", r"return its \.items\(\)"),
        ("return 7", r"map\(record\) returned 7 \(int\)"),
    ],
)
def test_what_map_yields_is_explained(run: Any, files: Callable[..., list[Path]], body: str, message: str) -> None:
    (path,) = files(fruit="cherry\ndurian\n")
    with pytest.raises(UserCodeError, match=message) as caught:
        run(f"def map(record):\n    {body}\n" + IDENTITY, path)
    assert caught.value.name == "ProgramError"
    assert re.search(r"map task 0, .*fruit\.txt, line [12]$", caught.value.where)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", r"reduce\(key, values\) returned None where an iterable of records is needed"),
        ("return {'n': 1}", r"returned \{'n': 1\} \(dict\)"),
        ("return key, 1", r"returned \('a', 1\) \(tuple\)"),
        ("yield lambda: 1 / 0; yield threading.Lock()", "cannot be sent to the notebook"),
    ],
)
def test_what_reduce_yields_is_explained(run: Any, body: str, message: str) -> None:
    with pytest.raises(UserCodeError, match=message):
        run.over(
            f"import threading\ndef map(record):\n    yield record, 1\ndef reduce(key, values):\n    {body}\n", ["a"]
        )


def test_what_combine_yields_is_explained(run: Any) -> None:
    with pytest.raises(UserCodeError, match=r"key 'a'.*combine\(key, values\) yielded 2 \(int\)"):
        run.over(
            WORDS + COMBINE.replace("key, sum(values)", "sum(values)", 1).replace("(sum(values))", "(key, values)"),
            ["a a"],
        )


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("threading.Lock(), 1", r"the key <unlocked .* \(lock\), which cannot be sent .* equal only themselves"),
        ("Broken(), 1", r"the key .* \(Broken\), which cannot be sent to a reducer: ValueError: no copies"),
        ("1, threading.Lock()", r"the value <unlocked .* for the key 1 \(int\), which cannot be sent to a reducer"),
    ],
)
def test_what_cannot_be_sent_is_named_with_its_record(
    run: Any, files: Callable[..., list[Path]], pair: str, message: str
) -> None:
    (path,) = files(fruit="apple\ncherry\n")
    source = f"""
    import threading
    class Broken:
        def __eq__(self, other): return True
        def __hash__(self): return 1
        def __reduce__(self): raise ValueError("no copies")
    def map(record):
        if record == "cherry":
            yield {pair}
        yield record, 1
    """
    with pytest.raises(UserCodeError, match=message) as caught:
        run(textwrap.dedent(source) + IDENTITY, path)
    assert re.search(r"map task 0, .*fruit\.txt, line 2$", caught.value.where)


def test_what_only_combining_made_unsendable_names_the_task(run: Any) -> None:
    source = "import threading\ndef map(record):\n    yield 1, 1\ndef combine(key, values):\n"
    with pytest.raises(UserCodeError, match=r"map task 0: .*what map yielded cannot be sent to a reducer"):
        run.over(source + "    yield 1, threading.Lock()\n" + IDENTITY, [1] * 100)


def test_a_users_error_names_record_and_line(run: Any, files: Callable[..., list[Path]]) -> None:
    (path,) = files(numbers="1\n2\nthree\n4\n")
    with pytest.raises(UserCodeError) as caught:
        run("def map(record):\n    yield int(record), 1\n" + IDENTITY, path)
    error = caught.value
    assert (error.name, error.where) == ("ValueError", f"map task 0, {path}, line 3")
    assert 'File "Cell In[7]", line 3, in map' in error.traceback
    assert "paibook" not in error.traceback
    assert isinstance(error.original, ValueError)


def test_a_users_error_in_reduce_names_the_key(run: Any) -> None:
    source = "def map(record):\n    yield record, 0\ndef reduce(key, values):\n    yield 1 / sum(values)"
    with pytest.raises(UserCodeError, match="reduce task 0, key 'a': ZeroDivisionError"):
        run.over(source, ["a"], reducers=1)


def test_a_program_that_exits_is_an_error(run: Any) -> None:
    with pytest.raises(UserCodeError, match="SystemExit"):
        run.over("def map(record):\n    raise SystemExit(3)\n    yield\n" + IDENTITY, ["a"])


def test_a_malformed_record_ends_the_run(run: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2"):
        run("def map(record):\n    yield 1, 1\n" + IDENTITY, tmp_path / "a.jsonl")


# Options that are wrong


def test_a_glob_without_match_is_refused_before_anything_runs(run: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file matches .*nothing\*\.txt.*looked for in"):
        Driver().check(run.plan(WORDS, tmp_path / "nothing*.txt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reducers": 0}, "--reducers must be a whole number, 1 or more; got 0"),
        ({"reducers": True}, "--reducers"),
        ({"format": "xml"}, "unknown input format 'xml'"),
        ({"as": "table"}, "list or dataframe"),
        ({"out_kind": "path"}, "an output path is needed"),
    ],
)
def test_options_are_checked(run: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        run.over(WORDS, ["a"], **options)


def test_an_input_is_needed(run: Any) -> None:
    with pytest.raises(PlanError, match="needs an input"):
        run(WORDS)
    with pytest.raises(PlanError, match="'nothing' is not defined in the notebook"):
        run(WORDS, {"variable": "nothing"})


def test_cancelling_ends_the_run_and_leaves_nothing(run: Any, tmp_path: Path) -> None:
    plan = run.plan(WORDS, {"variable": "items"}, out=str(tmp_path / "out.parquet"))
    context = run.context({"items": ["a", "b", "c"]})
    context.progress = lambda progress: context.cancel() if progress.done else None
    with pytest.raises(RunCancelled):
        Driver().run(plan, run.cluster, context)
    assert os.listdir(tmp_path) == []
