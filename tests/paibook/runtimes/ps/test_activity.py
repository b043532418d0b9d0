"""What a server counts of what it is asked, and the picture that is made of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from paibook.runtimes.ps.activity import MOST_KEYS, SAMPLED_EVERY, Activity
from paibook.runtimes.ps.picture import picture


def test_requests_bytes_and_staleness_are_counted() -> None:
    activity, rows = Activity(), np.zeros((3, 2), np.float32)
    for staleness in (0, 2, 2, -1):
        activity.pulled(1, "w", np.arange(3), rows, staleness)
    activity.pushed(1, "w", None, rows)
    activity.pushed(0, "w", np.arange(3), rows)
    told = json.loads(json.dumps(activity.to_wire()))
    assert (told["pulls"], told["pushes"], told["keys"]) == (4, 2, 18)
    assert told["bytes"] == {"1": [24, 96], "0": [24, 0]}
    assert told["staleness"] == {"w": {"0": 2, "2": 2}}


def test_keys_that_are_asked_for_more_than_others_are_found() -> None:
    activity, chance = Activity(), np.random.default_rng(0)
    for _ in range(40 * SAMPLED_EVERY):
        keys = np.where(chance.random(500) < 0.3, 7, chance.integers(0, 10**9, 500))
        activity.pushed(0, "w", keys, np.zeros((500, 1)))
        assert len(activity._hot) <= MOST_KEYS
    table, key, share = activity.to_wire()["hot"][0]
    assert (table, key) == ("w", 7)
    assert 0.2 < share < 0.4


def server(pulls: int, sent: int, waiting: list[int]) -> dict[str, Any]:
    shard = {"table": "w", "rows": 5, "bytes": 20, "rows_in_memory": 3, "rows_on_disk": 2, "bytes_in_memory": 90}
    return {
        "pulls": pulls,
        "pushes": 1,
        "keys": 9,
        "bytes": {"0": [10, sent]},
        "staleness": {"w": {"1": pulls}},
        "hot": [["w", 4, 0.2 + pulls / 100]],
        "shards": [{**shard, "bytes_on_disk": 16, "primary": True}, {**shard, "bytes_on_disk": 16, "primary": False}],
        "process_bytes": 1000,
        "waiting": waiting,
    }


def test_a_picture_has_rates_and_everybodys_state() -> None:
    status = {
        "clock": 3,
        "clocks": [3, 5, 4],
        "retired": [2],
        "waiting": [],
        "consistency": "ssp",
        "staleness_bound": 2,
        "view": {"primaries": [0, 1], "backups": [[1], [0]]},
    }
    before = {0: server(2, 100, [])}
    drawn = picture(status, {0: server(6, 300, [1]), 1: server(4, 50, [])}, before, 2.0)
    assert json.loads(json.dumps(drawn)) == drawn
    assert [worker["state"] for worker in drawn["workers"]] == ["training", "waiting", "ended"]
    first, second = drawn["servers"]
    assert (first["primary"], first["copies"], second["primary"]) == ([0], [1], [1])
    assert (first["pulls_per_second"], first["pushes_per_second"], first["bytes_per_second"]) == (2, 0, 100)
    assert second["pulls_per_second"] == 2  # it is new: all it was asked came in this time
    assert (first["rows"], first["rows_on_disk"], first["bytes"], first["bytes_on_disk"]) == (6, 4, 180, 32)
    assert drawn["traffic"] == [[0, 0, 100.0], [0, 1, 30.0]]
    assert drawn["tables"] == [{"name": "w", "rows": 10, "bytes": 40}]
    assert drawn["staleness"] == {"w": {"1": 10}}
    assert (drawn["pulls"], drawn["hot"][0]) == (10, ["w", 4, 0.26])


CELL = """
    import time

    def train(ps):
        w = ps.table("w", sparse=True, optimizer=pai.SGD(0.1))
        for epoch in ps.clocks(6):
            w.push([rank, 9], [1.0, 1.0])
            w.pull([9])
            time.sleep(0.25)
"""


def test_hot_rows_of_a_dense_table_have_the_tables_numbers(bench: Any) -> None:
    summaries: list[Any] = []
    context = bench.context()
    context.summarise = summaries.append
    cell = """
        def train(ps):
            w = ps.table("w", shape=10, optimizer=pai.SGD(0.1))
            for epoch in ps.clocks(8):
                w.push([8], [1.0])
                w.pull([8])
    """
    bench.run(cell, context, workers=1, servers=2)
    assert [hot[:2] for hot in summaries[0]["hot"]] == [["w", 8]]


def test_a_run_is_pictured_while_it_goes_on_and_at_its_end(bench: Any) -> None:
    seen: list[Any] = []
    summaries: list[Any] = []
    context = bench.context()
    context.progress = lambda progress: seen.append(progress.picture) if progress.picture else None
    context.summarise = summaries.append
    bench.run(CELL, context, workers=2, consistency="ssp")
    assert len(seen) >= 2
    middle = seen[len(seen) // 2]
    assert middle["pushes"] > 0
    assert "training" in [worker["state"] for worker in middle["workers"]]
    (last,) = summaries
    assert last["tables"] == [{"name": "w", "rows": 3, "bytes": 12}]
    assert (last["pulls"], last["pushes"]) == (12, 24)
    assert [worker["clock"] for worker in last["workers"]] == [6, 6]
    assert {worker["state"] for worker in last["workers"]} == {"ended"}
