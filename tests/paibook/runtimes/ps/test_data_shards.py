"""``ps.shards``: every data shard is somebody's, and done once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from paibook.errors import TableError, UserCodeError
from paibook.runtimes.ps.ledger import Ledger

CELL = """
    import time

    def update(weight, grad):
        return weight + grad

    def train(ps):
        done = ps.table("done", shape=7, dtype="int64")
        mine = []
        for number in range(2):
            for part in ps.shards(parts):
                time.sleep(0.01 * rank)
                done.push([parts.index(part)], [1])
                mine.append(part)
        return mine, done.pull().tolist()
"""


@pytest.mark.parametrize("consistency", ["bsp", "ssp", "asp"])
def test_each_is_done_once_in_every_pass(bench: Any, consistency: str) -> None:
    context = bench.context(parts=list("abcdefg"))
    result = bench.run(CELL, context, consistency=consistency, staleness=1)
    assert result.tables["done"].tolist() == [2] * 7
    assert Counter(part for mine, _ in result.returned for part in mine) == dict.fromkeys("abcdefg", 2)


def test_more_workers_than_shards_do_not_hold_each_other_up(bench: Any) -> None:
    cell = CELL.replace("ps.shards(parts)", "ps.shards(1)").replace("parts.index(part)", "part")
    result = bench.run(cell, bench.context(), workers=4)
    assert result.tables["done"].tolist() == [2, 0, 0, 0, 0, 0, 0]


def test_workers_that_disagree_are_told(bench: Any) -> None:
    cell = "\n    def train(ps):\n        for part in ps.shards(3 + rank): pass\n"
    with pytest.raises(UserCodeError, match=r"ps\.shards was called with \d data shards here and with \d on another"):
        bench.run(cell, workers=2)


def test_what_is_no_list_is_refused(bench: Any) -> None:
    cell = "\n    def train(ps):\n        for part in ps.shards(0.5): pass\n"
    with pytest.raises(UserCodeError, match=r"ps\.shards takes a list of data shards, or how many there are; got 0\.5"):
        bench.run(cell, workers=1)


def test_a_ledger_goes_on_from_its_log(tmp_path: Any) -> None:
    path = str(tmp_path / "log")
    first = Ledger(path)
    first.shards(0, 3)
    assert [first.give(0, (rank, 0)) for rank in (0, 1, 0)] == [0, 1, 0]
    first.finish(0, 0, (0, 0), 5)
    first.finish(0, 1, (2, 0), 9)  # it is not that worker's
    first.free((1, 0))
    first.finish(0, 1, (1, 0), 9)  # nor that one's any more
    first.write("stop", reason="loss < 1")
    first.write("retired", rank=2, clock=7)
    first.close()
    with open(path, "ab") as file:
        file.write(b'{"kind": "retired", "ra')  # the process died in the middle
    second = Ledger(path)
    assert (second.reason, second.retired, second.committed) == ("loss < 1", {2: 7}, {0: 5})
    assert [second.give(0, (rank, 1)) for rank in (0, 1, 2)] == [1, 2, None]
    assert not second.calls[0].over
    second.close()
    third = Ledger(path)
    assert third.calls[0].given == {1: (0, 1), 2: (1, 1)}
    with pytest.raises(TableError, match="called with 4 data shards here and with 3 on another worker"):
        third.shards(0, 4)
    third.close()
