"""Histograms and quantiles against NumPy; the cleaning report against a table whose faults are known."""

import sys

import numpy as np
import pytest

from paibook.algorithms import cleaning_report, histogram, quantiles
from paibook.errors import DataError, PlanError

NUMBERS = np.random.default_rng(0).normal(10, 3, 3000)


@pytest.mark.parametrize("limits", [None, (8.0, 12.0)])
def test_a_histogram_is_numpys(session, limits):
    counts, edges = np.histogram(NUMBERS, bins=7, range=limits)
    found = histogram([{"x": x} for x in NUMBERS] + [{"x": None}], "x", bins=7, range=limits, session=session)
    assert list(found["count"]) == list(counts)
    np.testing.assert_allclose(found["low"], edges[:-1])
    np.testing.assert_allclose(found["high"], edges[1:])


def test_empty_bins_are_shown(session):
    assert list(histogram([0.0, 0.0, 4.0], bins=4, session=session)["count"]) == [2, 0, 0, 1]


def test_a_histogram_of_nothing_is_refused(session):
    with pytest.raises(DataError, match="'x' has no numbers"):
        histogram([{"x": None}], "x", session=session)


def test_bins_and_ranges_are_checked(simulated):
    with pytest.raises(PlanError, match="1 bin"):
        histogram([1.0], bins=0, session=simulated)
    with pytest.raises(PlanError, match="finite"):
        histogram([1.0], range=(3, 1), session=simulated)


def test_quantiles_are_within_the_digests_error(session):
    pytest.importorskip("fastdigest")
    probabilities = [0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.99, 1]
    table = [{"x": x, "y": -x} for x in NUMBERS]
    found = quantiles(table, ["x", "y"], probabilities, session=session).set_index(["column", "probability"])["value"]
    for column, values in (("x", np.sort(NUMBERS)), ("y", np.sort(-NUMBERS))):
        ranks = np.searchsorted(values, [found[column, p] for p in probabilities]) / len(values)
        assert np.abs(ranks - probabilities).max() < 0.002
        assert found[column, 0] == values[0]
        assert found[column, 1] == values[-1]


def test_quantiles_without_the_library_say_what_to_install(simulated, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastdigest", None)
    with pytest.raises(PlanError, match=r"pip install 'paibook\[algorithms\]'"):
        quantiles([1.0], session=simulated)


def test_a_probability_above_one_is_refused(simulated):
    with pytest.raises(PlanError, match="between 0 and 1; got 50"):
        quantiles([1.0], probabilities=[50], session=simulated)


def test_the_report_finds_what_is_wrong(session):
    pytest.importorskip("fastdigest")
    table = [{"age": str(20 + i % 30), "born": "1990-01-02", "id": i, "note": f"n{i % 3}"} for i in range(2000)]
    table[10] |= {"age": "?"}
    table[11] |= {"age": "forty"}
    table[12] |= {"age": "900", "born": "yesterday"}
    found = cleaning_report(table, session=session).set_index("column")
    assert dict(found["type"]) == {"age": "integer", "born": "date", "id": "integer", "note": "text"}
    assert dict(found["missing"]) == {"age": 1, "born": 0, "id": 0, "note": 0}
    assert dict(found["bad"]) == {"age": 1, "born": 1, "id": 0, "note": 0}
    assert list(found.loc["age", "bad_examples"]) == ["forty"]
    assert list(found.loc["born", "bad_examples"]) == ["yesterday"]
    assert found.loc["note", "distinct"] == 3
    assert abs(found.loc["id", "distinct"] - 2000) < 0.15 * 2000
    assert (found.loc["age", "min"], found.loc["age", "max"]) == (20, 900)
    ages = [float(row["age"]) for row in table if row["age"] not in ("?", "forty")]
    assert found.loc["age", "mean"] == pytest.approx(np.mean(ages))
    assert found.loc["age", "outliers"] == 1
    assert found.loc["id", "outliers"] == 0


def test_integers_among_numbers_are_not_bad(session):
    pytest.importorskip("fastdigest")
    found = cleaning_report([{"x": "1"}, {"x": "2"}, {"x": "2.5"}, {"x": True}], session=session)
    assert found[["type", "bad"]].to_dict("records") == [{"type": "number", "bad": 1}]
