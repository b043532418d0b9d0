"""The parts under MPI's names: what they refuse and how, and what needs no ranks."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest

from paibook.comms import (
    ANY_SOURCE,
    ANY_TAG,
    MAXLOC,
    PROC_NULL,
    SUM,
    CommunicatorError,
    Operator,
    Request,
    Status,
    mpi,
    operators,
)
from paibook.comms.buffer_specs import one_part, parts
from paibook.comms.datatypes import DATATYPES
from paibook.comms.division import COMM_NULL
from paibook.comms.inbox import INTERNAL_TAG, Inbox, Letter
from paibook.comms.threads import ThreadCommunicator, ThreadGroup
from paibook.comms.transport import derived_context
from paibook.errors import RunError

DATA = np.arange(3, dtype=np.uint8)


@pytest.mark.parametrize(
    ("error", "match", "spec"),
    [
        (TypeError, "buf holds float64, and <MPI.INT: int32> was given; leave the datatype out", [np.zeros(2), "i"]),
        (TypeError, "'no type' is no datatype; use one such as MPI.DOUBLE", [np.zeros(2), "no type"]),
        (ValueError, "elements 0 to 3 were asked for; the buffer has 2", [np.zeros(2), 3]),
        (ValueError, "with one count; got counts", [np.zeros(2), [1, 1]]),
        (ValueError, "3 bytes, which is no whole number of <MPI.INT", [bytearray(3), DATATYPES["INT"]]),
        (TypeError, "got list", [[1, 2], "d"]),
    ],
)
def test_specs_of_one_part_that_do_not_fit(error: type[Exception], match: str, spec: Any) -> None:
    with pytest.raises(error, match=match):
        one_part(spec, "buf")


@pytest.mark.parametrize(
    ("error", "match", "spec"),
    [
        (ValueError, "recvbuf: counts must have 3 numbers, one per rank; got 2", [np.zeros(4), [2, 2]]),
        (ValueError, "rank 2's part is elements 2 to 5; the buffer has 4", [np.zeros(4), [1, 1, 3]]),
        (ValueError, "displs must have 3 numbers", [np.zeros(4), [1, 1, 1], [0]]),
        (TypeError, "counts must be whole numbers, one per rank; got 'abc'", [np.zeros(4), "abc", None]),
        (ValueError, "got 3 things between", [np.zeros(4), 1, 2, 3]),
    ],
)
def test_specs_of_several_parts_that_do_not_fit(error: type[Exception], match: str, spec: Any) -> None:
    with pytest.raises(error, match=match):
        parts(spec, "recvbuf", 3)


def test_parts_are_views_where_the_spec_says() -> None:
    buffer = np.arange(10)
    blocks = parts((buffer, ([1, 2, 3], np.array([7, 0, 4]))), "buf", 3)
    assert [blocks.of(rank).tolist() for rank in range(3)] == [[7], [0, 1], [4, 5, 6]]
    blocks.of(1)[:] = -1
    assert buffer[:2].tolist() == [-1, -1]
    assert parts(buffer, "buf", 3).counts == (4, 3, 3)
    assert parts([buffer, 2, "l"], "buf", 3).displs == (0, 2, 4)


def test_operators_keep_their_identity_and_say_what_they_take() -> None:
    assert all(pickle.loads(pickle.dumps(op)) is op for op in operators.PREDEFINED.values())
    own = Operator.Create(lambda left, right, datatype: left, commute=True)
    assert (own.is_commutative, own.is_predefined, SUM.is_predefined) == (True, False, True)
    with pytest.raises(TypeError, match=r"MAXLOC combines \(value, index\) pairs; got 3 and 4"):
        MAXLOC(3, 4)
    with pytest.raises(TypeError, match=r"arrays of two fields, such as np\.zeros"):
        MAXLOC.arrays(np.zeros(2), np.zeros(2))


def test_receives_get_letters_in_the_order_of_both() -> None:
    inbox = Inbox()
    first, other, second = inbox.begin(0, 5), inbox.begin(1, ANY_TAG), inbox.begin(ANY_SOURCE, ANY_TAG)
    for source, tag, context in ((0, 5, 9), (0, INTERNAL_TAG, 0), (0, 5, 0), (0, 5, 0)):
        inbox.put(Letter(source, tag, DATA, context))
    assert first.letter is not None
    assert second.letter is not None
    assert other.letter is None
    assert inbox.find(0, ANY_TAG) is None
    assert inbox.find(0, ANY_TAG, 9) is not None
    assert inbox.begun == 3
    assert inbox.withdraw(other)
    assert not inbox.withdraw(first)
    assert inbox.begun == 2
    inbox.lose(0, "rank 0 left the group")
    with pytest.raises(CommunicatorError, match="probe: rank 0 left the group"):
        inbox.wait_until(lambda: False, 0, "probe")
    assert inbox.take(0, 5, 9).data is DATA  # what has come before is still there


def test_a_letter_is_acknowledged_when_its_receive_begins() -> None:
    inbox, heard = Inbox(), threading.Event()
    inbox.put(Letter(0, 1, DATA, 0, heard.set))
    assert inbox.find(0, 1) is not None
    assert not heard.is_set()
    inbox.begin(0, 1)
    assert heard.is_set()


def test_contexts_differ_by_parent_turn_and_color() -> None:
    contexts = [derived_context(parent, turn, color) for parent in (0, 7) for turn in (1, 2) for color in (0, 1, "dup")]
    assert len({*contexts, 0}) == 13
    assert derived_context(0, 1, 0) == contexts[0]


def test_what_a_rank_outside_every_part_has() -> None:
    assert not COMM_NULL
    assert mpi.COMM_NULL == COMM_NULL
    with pytest.raises(AttributeError, match=r"this rank is in no part .* ask `if part != MPI.COMM_NULL` first"):
        COMM_NULL.allreduce(1)


def test_one_ranks_communicator_refuses_what_makes_no_sense() -> None:
    comm = ThreadCommunicator(ThreadGroup(1), 0)
    status = Status()
    comm.send(1, 0, tag=3)
    with pytest.raises(ValueError, match=r"message of \d+ bytes for a buffer of 0"):
        comm.Recv(np.zeros(0), 0, 3, status)
    comm.Send(DATA, 0, tag=4)
    with pytest.raises(RunError, match="rank 0 with tag 4 holds no object of these ranks; what Send sends"):
        comm.recv(source=0, tag=4)
    with pytest.raises(
        ValueError, match="split takes a color from 0, or UNDEFINED, and a whole key; rank 0 gave -3, 0"
    ):
        comm.split(-3)
    with pytest.raises(ValueError, match=r"dims must be a grid of at most 1 places; got \[2\]"):
        comm.Create_cart([2])
    with pytest.raises(ValueError, match="comm itself cannot be freed"):
        comm.Free()
    with pytest.raises(ValueError, match=r"different ranks from 0 to 0; got \[0, 0\]"):
        comm.Get_group().Incl([0, 0])
    with pytest.raises(ValueError, match=r"ranks \[3\] of the world are not in it"):
        comm.Create(mpi.Group((0, 3), 0))
    part = comm.dup()
    part.Free()
    with pytest.raises(CommunicatorError, match="was freed by Free"):
        part.send(1, 0)
    failing = comm.Ibcast([1, 2])
    with pytest.raises(TypeError, match="got list"):
        failing.wait()
    with pytest.raises(ValueError, match="source must be a rank from 0 to 0; got 5"):
        comm.irecv(source=5)
    comm.send("nowhere", PROC_NULL)
    assert Request.testall([comm.isend(1, PROC_NULL), comm.irecv(source=PROC_NULL)]) == (True, [None, None])


def test_the_facade_names_what_it_has_and_lacks() -> None:
    assert {"COMM_WORLD", "SUM", "DOUBLE", "Wtime"} <= set(dir(mpi))
    assert (mpi.DOUBLE.Get_size(), mpi.INT.Get_name(), mpi._typedict["d"].name) == (8, "MPI_INT", "DOUBLE")
    assert mpi.Wtick() < 1
    assert mpi.Query_thread() == mpi.THREAD_MULTIPLE
    assert mpi.Is_initialized()
    assert not mpi.Is_finalized()
    assert mpi.Get_library_version().startswith("paibook")
    with pytest.raises(AttributeError, match=r"no 'Spawned'; docs/allreduce.md lists"):
        mpi.Spawned
