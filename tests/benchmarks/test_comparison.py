"""Ratios are taken pair by pair, and a wrong answer is never compared."""

import json

from benchmarks.comparison import Comparison, Target, compare, median, pair_ratios, read_json, write_json

ABOUT = {"versions": {"paibook": "1", "peer": "2"}, "machine": "2 cores", "date": "2026-11-23T00:00:00+00:00"}
KEYS = {
    *("name", "peer", "ratio", "spread", "target", "better", "ok", "unit", "ours", "theirs"),
    *("versions", "machine", "date"),
}


def test_the_ratio_is_the_median_over_pairs():
    row = compare("x", "peer", [1.0, 2.0, 9.0], [2.0, 2.0, 3.0], unit="s", target=Target(3.0), **ABOUT)
    assert (row.ratio, row.spread) == (1.0, (0.5, 3.0))
    assert (row.ours, row.theirs) == (2.0, 2.0)
    assert row.ok


def test_a_turn_without_a_right_answer_has_no_ratio():
    assert pair_ratios([1.0, None, 4.0], [2.0, 1.0, None]) == [0.5]
    row = compare("x", "peer", [1.0, 1.0], [None, None], unit="s", target=Target(3.0), **ABOUT)
    assert row.ratio is None
    assert row.spread is None
    assert row.theirs is None
    assert row.ok, "the target bounds our own value, which is there"


def test_a_wrong_answer_of_ours_never_meets_a_target():
    assert not compare("x", "peer", [1.0, None], [9.0, 9.0], unit="s", target=Target(3.0), **ABOUT).ok


def test_targets_bound_a_value_or_a_ratio():
    by_ratio = Target(1.05, of="ratio")
    assert compare("x", "p", [1.0], [1.0], unit="s", target=by_ratio, **ABOUT).ok
    assert not compare("x", "p", [1.1], [1.0], unit="s", target=by_ratio, **ABOUT).ok
    assert compare("x", "p", [4.0], [2.0], unit="GB/s", target=Target(2, of="ratio"), better="higher", **ABOUT).ok
    assert by_ratio.text("lower", "s") == "<= 1.05x"
    assert Target(10.0).text("higher", "GB/s") == ">= 10 GB/s"


def test_the_printed_line_has_its_five_parts():
    row = compare("no-op cell", "dask", [1.0, 1.0], [2.0, 4.0], unit="ms", target=Target(10.0), **ABOUT)
    assert row.line().split("  ") != []
    assert [part.strip() for part in row.line().split("  ") if part.strip()] == [
        *("no-op cell", "dask", "0.375 (0.25-0.5)", "<= 10 ms", "ok")
    ]
    short = compare("no-op cell", "dask", [11.0], [None], unit="ms", target=Target(10.0), **ABOUT)
    assert [part.strip() for part in short.line().split("  ") if part.strip()][2:] == ["-", "<= 10 ms", "short"]


def test_json_holds_exactly_the_agreed_keys_and_reads_back(tmp_path):
    rows = [
        compare("a", "peer", [1.0], [2.0], unit="s", target=Target(3.0), **ABOUT),
        compare("b", "peer", [None], [None], unit="s", target=Target(3.0), **ABOUT),
    ]
    path = tmp_path / "results" / "cells.json"
    write_json(rows, path)
    loaded = json.loads(path.read_text())
    assert isinstance(loaded, list)
    assert all(set(row) == KEYS for row in loaded)
    assert read_json(path) == rows
    assert all(isinstance(row, Comparison) for row in read_json(path))


def test_median_of_nothing_is_none():
    assert median([None, None]) is None
