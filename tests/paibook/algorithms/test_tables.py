"""Joins against pandas; distinct and samples against their definitions."""

import pandas as pd
import pytest

from paibook.algorithms import distinct, join, sample
from paibook.errors import PlanError

LEFT = pd.DataFrame({"id": [1, 2, 2, 3, 5], "city": ["Oslo", "Rome", "Pisa", "Bonn", "Graz"]})
RIGHT = pd.DataFrame({"id": [2, 2, 3, 4], "city": ["u", "v", "w", "x"], "visits": [7, 8, 9, 10]})


def rows(table):
    """The rows as a multiset, missing values as None."""
    columns = sorted(table.columns)
    return sorted(repr(tuple(None if x != x else x for x in row)) for row in table[columns].itertuples(index=False))


@pytest.mark.parametrize("how", ["inner", "left"])
def test_joins_are_those_of_pandas(session, how):
    expected = LEFT.merge(RIGHT, on="id", how=how, suffixes=("", "_right"))
    found = join(LEFT, RIGHT, "id", how=how, session=session)
    assert rows(found) == rows(expected)


def test_semi_and_anti_joins_keep_left_records(session):
    known = LEFT["id"].isin(RIGHT["id"])
    assert rows(join(LEFT, RIGHT, "id", how="semi", session=session)) == rows(LEFT[known])
    assert rows(join(LEFT, RIGHT, "id", how="anti", session=session)) == rows(LEFT[~known])


def test_keys_of_two_columns_with_other_names(session):
    left = [{"a": 1, "b": "x", "l": 1}, {"a": 1, "b": "y", "l": 2}]
    right = [{"c": 1, "d": "y", "r": 3}]
    found = join(left, right, left_on=["a", "b"], right_on=["c", "d"], session=session)
    assert found.to_dict("records") == [{"a": 1, "b": "y", "l": 2, "r": 3}]


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_missing_key_matches_nothing(session, nothing):
    left, right = [{"id": nothing, "l": 1}, {"id": 1, "l": 2}], [{"id": nothing, "r": 1}, {"id": 1, "r": 2}]
    assert list(join(left, right, "id", session=session)["l"]) == [2]
    assert sorted(join(left, right, "id", how="left", session=session)["l"]) == [1, 2]
    assert list(join(left, right, "id", how="anti", session=session)["l"]) == [1]


def test_a_join_that_cannot_be_meant_is_refused(simulated):
    with pytest.raises(PlanError, match="inner, left, semi, anti; got 'outer'"):
        join(LEFT, RIGHT, "id", how="outer", session=simulated)
    with pytest.raises(PlanError, match="key columns"):
        join(LEFT, RIGHT, left_on=["id", "city"], right_on="id", session=simulated)
    assert simulated.plans == []


def test_distinct_records(session):
    records = [{"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, {"a": 1, "b": [2]}]
    assert rows(distinct(records, session=session)) == rows(pd.DataFrame(records[1:]))
    assert sorted(distinct([3, 1, 3, 3, 2], session=session)) == [1, 2, 3]


def test_distinct_in_some_columns(session):
    records = [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": float("nan"), "b": 3}, {"a": float("nan"), "b": 4}]
    found = distinct(records, "a", session=session)
    assert len(found) == 2
    assert set(found["b"]) & {1, 2}
    assert set(found["b"]) & {3, 4}


@pytest.mark.parametrize("n", [1, 10, 100, 500])
def test_a_sample_has_exactly_n_records_once_each(session, n):
    found = sample(list(range(100)), n, session=session)
    assert len(found) == len(set(found)) == min(n, 100)
    assert set(found) <= set(range(100))
    assert found == sample(list(range(100)), n, session=session)


def test_another_seed_draws_others_and_all_records_can_be_drawn(simulated):
    draws = [frozenset(sample(list(range(20)), 5, seed=seed, session=simulated)) for seed in range(60)]
    assert len(set(draws)) > 50
    assert frozenset().union(*draws) == frozenset(range(20))


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_a_sample_of_no_size_is_refused(simulated, n):
    with pytest.raises(PlanError, match="1 or more"):
        sample([1], n, session=simulated)
