"""What is told from where ranks are."""

from __future__ import annotations

import json

from paibook.comms.calls import Call
from paibook.runtimes.allreduce.conflicts import conflict, described
from paibook.runtimes.allreduce.whereabouts import Whereabouts

SUMS = ("float64", 10, "SUM", None)


def at(*calls: Call, line: int = 3, waits: bool = True, digest: int = 0) -> Whereabouts:
    return Whereabouts(line, calls[-1] if calls and waits else None, len(calls), digest, True, calls)


FIRST, SECOND = Call(1, "Barrier"), Call(2, "Allreduce", SUMS)


def test_ranks_that_wait_in_one_operation_agree() -> None:
    assert conflict({0: at(FIRST, SECOND), 1: at(FIRST, SECOND)}, {}) is None
    assert conflict({0: at(FIRST, SECOND), 1: at(FIRST)}, {}) is None  # still on its way


def test_an_operation_that_differs_is_named() -> None:
    other = Call(2, "Bcast", ("float64", 10, None, 0))
    text = conflict({0: at(FIRST, SECOND), 1: at(FIRST, other), 2: at(FIRST, SECOND)}, {})
    assert text == (
        "collective #2 was Allreduce of 10 float64 (SUM) on ranks 0, 2 and Bcast of 10 float64 from root 0 on rank 1"
    )


def test_a_rank_that_has_ended_cannot_be_waited_for() -> None:
    text = conflict({0: at(FIRST, SECOND)}, {1: at(FIRST, waits=False)})
    assert text == "rank 0 waits in Allreduce #2 (line 3), and rank 1 ended the cell after 1 collective"


def test_ends_that_differ() -> None:
    ends = {0: at(FIRST, SECOND, waits=False), 1: at(FIRST, waits=False)}
    assert conflict({}, ends) == "the cell ended after 2 on rank 0 and 1 on rank 1"
    ends = {rank: at(FIRST, waits=False, digest=rank) for rank in range(2)}
    assert conflict({}, ends) == "one of the collectives before #1 was not the same on all"


def test_whereabouts_travel_as_json() -> None:
    place = at(FIRST, SECOND)
    assert Whereabouts.from_json(json.loads(json.dumps(place.to_json()))) == place
    assert described({1: place, 0: Whereabouts()}) == "rank 1 was in Allreduce #2 (line 3); rank 0 was elsewhere"
