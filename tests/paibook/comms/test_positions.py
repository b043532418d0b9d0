"""Which rank the running code is: by thread, or by process."""

from __future__ import annotations

import threading

import pytest

from paibook.comms.positions import Position, group, position, positioned
from paibook.comms.threads import ThreadCommunicator, ThreadGroup
from paibook.errors import PlanError


def test_outside_of_a_cell_there_is_one_rank() -> None:
    assert (position().rank, position().size, position().comm) == (0, 1, None)
    assert group().allreduce(3) == 3


@pytest.mark.parametrize("whole_process", [False, True])
def test_a_position_holds_where_it_was_taken(whole_process: bool) -> None:
    comm = ThreadCommunicator(ThreadGroup(2), 1)
    found: list[int] = []
    with positioned(Position(1, 2, comm), whole_process):
        assert position().rank == 1
        assert group() is comm
        other = threading.Thread(target=lambda: found.append(position().size))
        other.start()
        other.join()
    assert found == [2 if whole_process else 1]
    assert position().size == 1


def test_ranks_without_collectives_are_told() -> None:
    comm = ThreadCommunicator(ThreadGroup(1), 0)
    with positioned(Position(1, 2)):
        assert group(comm) is comm
        with pytest.raises(PlanError, match="use %%pai_allreduce"):
            group()
