"""Filters: what arrives is near what was sent, what is not arrives later, and fewer bytes travel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import paibook as pai
from paibook.errors import RunError, TableError
from paibook.runtimes.ps.client import ParameterServer
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.error_feedback import Filters, LeftOutRows
from paibook.runtimes.ps.filters import BLOCK, FLAGS, decode, encode, encoded_bytes, parts_of
from paibook.runtimes.ps.messages import FP16, INT8, TOP_K
from tests.paibook.runtimes.ps.server_threads import channels, serving

moderate = st.floats(-60000, 60000, width=32)
vectors = st.one_of(
    arrays.arrays(np.float32, st.integers(0, 300), elements=moderate),
    arrays.arrays(np.float64, st.integers(0, 300), elements=moderate),
)


def arrived(flag: int, values: np.ndarray, **options: Any) -> np.ndarray:
    """Through the wire: encoded, sent as bytes, decoded."""
    data = bytearray(b"".join(part.tobytes() for part in encode(flag, values, **options)))
    if flag != TOP_K:
        assert len(data) == encoded_bytes(flag, values.size)
    return decode(flag, parts_of(flag, data, values.size, values.dtype), values.size, values.dtype)


@given(vectors)
def test_fp16_rounds(values: np.ndarray) -> None:
    assert np.array_equal(arrived(FP16, values), values.astype(np.float16))


@given(vectors, st.one_of(st.none(), st.integers(0, 99)))
def test_int8_is_within_a_step_of_its_block(values: np.ndarray, seed: int | None) -> None:
    chance = None if seed is None else np.random.default_rng(seed)
    received = arrived(INT8, values, chance=chance)
    assert received.dtype == values.dtype
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        step = np.abs(block).max() / 127
        error = np.abs(received[start : start + BLOCK] - block).max()
        assert error <= step * (0.5 if seed is None else 1) * 1.001 + 1e-36


def test_int8_at_random_is_right_on_average() -> None:
    values = np.random.default_rng(0).normal(size=500).astype(np.float32)
    chance = np.random.default_rng(1)
    mean = np.mean([arrived(INT8, values, chance=chance) for _ in range(400)], axis=0)
    step = np.abs(values).max() / 127
    assert np.abs(mean - values).max() < 5 * step * 0.5 / 20  # five standard errors


@given(vectors, st.floats(0.01, 1))
def test_top_k_sends_the_largest_as_they_are(values: np.ndarray, ratio: float) -> None:
    received = arrived(TOP_K, values, ratio=ratio)
    kept = max(1, round(ratio * len(values))) if len(values) else 0
    order = np.sort(np.abs(values))[::-1]
    assert np.allclose(np.sort(np.abs(received))[::-1][:kept], order[:kept])
    assert np.count_nonzero(received) <= kept
    assert ((received == values) | (received == 0)).all()


@pytest.mark.parametrize("flag", [FP16, INT8, TOP_K])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_arrives_as_none(flag: int, bad: float) -> None:
    values = np.linspace(-1, 1, 3 * BLOCK, dtype=np.float32)
    values[BLOCK + 3] = bad
    received = arrived(flag, values, ratio=0.9)
    assert not np.isfinite(received[BLOCK + 3])
    assert np.isfinite(received[:BLOCK]).all()


@pytest.mark.parametrize("flag", [FP16, INT8, TOP_K])
def test_bytes_that_are_no_such_values_are_refused(flag: int) -> None:
    with pytest.raises(RunError, match="are not 10 values"):
        parts_of(flag, bytearray(83), 10, np.dtype(np.float32))
    with pytest.raises(RunError, match=r"none of the shard's 10|are not 10 values"):
        parts_of(flag, bytearray(np.array([10], np.int32).tobytes() + bytes(4)), 10, np.dtype(np.float32))


@settings(max_examples=30)
@pytest.mark.parametrize("compress", [*FLAGS, pai.TopKFilter(0.3)])
@given(st.lists(arrays.arrays(np.float64, 100, elements=st.floats(-100, 100, width=32)), min_size=1, max_size=6))
def test_what_is_left_out_of_whole_pushes_is_sent_later(compress: Any, pushed: list[np.ndarray]) -> None:
    filters = Filters("w", compress, None, np.dtype(np.float64), 0)
    total = np.zeros(100)
    for values in pushed:
        flag, parts = filters.whole(0, values)
        total += decode(flag, parts, 100, np.dtype(np.float64))
    total += filters._push._left_out[0]  # type: ignore[union-attr]
    assert np.allclose(total, np.sum(pushed, axis=0), atol=1e-9)


@given(
    st.lists(st.lists(st.tuples(st.integers(-4, 9), st.integers(-9, 9)), max_size=12), max_size=8), st.floats(0.05, 1)
)
def test_rows_are_sent_or_wait_and_none_is_lost(pushes: list[list[tuple[int, int]]], ratio: float) -> None:
    left_out, total, expected = LeftOutRows(np.dtype(np.float32)), dict[int, float](), dict[int, float]()
    for push in pushes:
        keys = np.array([key for key, _ in push], np.int64)
        values = np.array([[value, 2 * value] for _, value in push], np.float32).reshape(-1, 2)
        for key, value in push:
            expected[key] = expected.get(key, 0) + value
        chosen, rows = left_out.choose(keys, values, ratio)
        assert len(chosen) <= max(1, round(ratio * len(keys)))
        assert rows.shape == (len(chosen), 2)
        for key, row in zip(chosen.tolist(), rows, strict=True):
            assert row[1] == 2 * row[0]
            total[key] = total.get(key, 0) + float(row[0])
    for key, row in zip(left_out.keys.tolist(), left_out.rows, strict=True):
        total[key] = total.get(key, 0) + float(row[0])
    assert {key: value for key, value in total.items() if value} == {k: v for k, v in expected.items() if v}


def test_rows_of_nan_are_all_sent_and_rows_of_tiny_numbers_wait() -> None:
    left_out, values = LeftOutRows(np.dtype(np.float32)), np.ones((50, 2), np.float32)
    values[7:20, 1], values[30], values[40] = np.nan, 1e-30, 3
    chosen, rows = left_out.choose(np.arange(50), values, 0.02)
    assert chosen.tolist() == [*range(7, 20), 40]
    assert np.isnan(rows[:-1, 1]).all()
    assert 30 in left_out.keys
    assert len(left_out.keys) == 50 - 14


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compress": "zip"}, r"compress takes 'fp16', 'int8', 'top-k', pai\.TopKFilter\(0\.01\) or None; got 'zip'"),
        ({"compress_pulls": "top-k"}, r"compress_pulls takes 'fp16', 'int8' or None"),
        ({"compress": "int8", "dtype": "int64"}, "holds int64; only float32 and float64"),
        ({"compress": pai.TopKFilter(), "dtype": "float16"}, "holds float16"),
        ({"compress_pulls": "fp16", "dtype": "int32"}, "holds int32"),
    ],
)
def test_what_cannot_be_compressed_is_refused(ps: ParameterServer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=f"table 'w'.*{message}"):
        ps.table("w", shape=3, **options)


def test_another_declaration_must_ask_for_the_same_filters(ps: ParameterServer) -> None:
    table = ps.table("again", shape=3, compress="top-k")
    assert ps.table("again", shape=3, compress=pai.TopKFilter(0.01)) is table
    message = (
        r"'again' was declared before, .*: now compress='int8', compress_pulls=None instead of compress=TopKFilter"
    )
    with pytest.raises(TableError, match=message):
        ps.table("again", shape=3, compress="int8")
    with pytest.raises(TableError, match="compress_pulls='fp16' instead of"):
        ps.table("again", shape=3, compress="top-k", compress_pulls="fp16")


@pytest.mark.parametrize("ratio", [0, 1.5, True, "1"])
def test_a_ratio_is_a_share(ratio: Any) -> None:
    with pytest.raises(ValueError, match="ratio must be above 0"):
        pai.TopKFilter(ratio)


@pytest.fixture(scope="module")
def ps() -> Any:
    with serving(Consistency("asp"), 1, 2) as run:
        ps = run.connect(0)
        yield ps
        ps.close()


def test_a_gradient_beyond_16_bits_is_named(ps: ParameterServer) -> None:
    table = ps.table("wide", shape=3, compress="fp16")
    with pytest.raises(TableError, match=r"compress='fp16' carries values up to 65504; got a gradient of 1e\+05"):
        table.push([1, -1e5, 0])
    with pytest.raises(TableError, match="use compress='int8'"):
        table.push([1], [1e5])


def sent_bytes(ps: ParameterServer, act: Any) -> int:
    """What a call sends and receives."""
    total = 0

    def count(size: int) -> None:
        nonlocal total
        total += size

    class Counting:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def send_all(self, views: list[memoryview]) -> None:
            count(sum(map(len, views)))
            self.stream.send_all(views)

        def receive_into(self, view: memoryview) -> None:
            count(len(view))
            self.stream.receive_into(view)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    streams = [channel.stream for channel in channels(ps)]
    for channel in channels(ps):
        channel.stream = Counting(channel.stream)  # type: ignore[assignment]
    ps.wait(act())
    for channel, stream in zip(channels(ps), streams, strict=True):
        channel.stream = stream
    return total


@pytest.mark.parametrize(("compress", "most"), [("fp16", 0.51), ("int8", 0.28), ("top-k", 0.03)])
def test_fewer_bytes_travel(ps: ParameterServer, compress: str, most: float) -> None:
    plain = ps.table("plain", shape=(5000, 4))
    table = ps.table(compress, shape=(5000, 4), compress=compress)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5000, 4)).astype(np.float32)
    assert sent_bytes(ps, lambda: table.push(values)) < most * sent_bytes(ps, lambda: plain.push(values))
    keys = rng.permutation(5000)
    for pushed in (plain, table):
        pushed.push(keys, values)  # from now on the keys are known
    saved = sent_bytes(ps, lambda: table.push(keys, values)) / sent_bytes(ps, lambda: plain.push(keys, values))
    assert saved < most
    if compress != "top-k":
        pulls = ps.table(compress + " pulls", shape=(5000, 4), compress_pulls=compress)
        pulls.push(values)
        assert sent_bytes(ps, pulls.prefetch) < most * sent_bytes(ps, plain.prefetch)
        expected = arrived(FLAGS[compress], values[:2500]).reshape(-1, 4)
        assert np.array_equal(pulls.pull()[:2500], expected)
        assert np.abs(pulls.pull(keys) - values[keys]).max() < np.abs(values).max() / 127


CELL = """
    import numpy as np

    x = np.random.default_rng(0).normal(size=(120, 20))
    target = x @ np.arange(20.0)

    def train(ps):
        w = ps.table("w", shape=20, dtype="float64", optimizer=pai.SGD(0.002), compress=compress)
        keys = np.arange(20)
        for epoch in ps.clocks(200):
            mine = slice(rank, None, world_size)
            gradient = x[mine].T @ (x[mine] @ w.pull() - target[mine])
            w.push(keys, gradient) if by_rows else w.push(gradient)
"""


@pytest.mark.parametrize("compress", ["fp16", "int8", pai.TopKFilter(0.2)])
@pytest.mark.parametrize("by_rows", [False, True])
def test_training_comes_to_the_same_end(bench: Any, compress: Any, by_rows: bool) -> None:
    result = bench.run(CELL, bench.context(compress=compress, by_rows=by_rows), workers=2)
    assert np.abs(result.tables["w"] - np.arange(20)).max() < 0.1
