"""Cells on ranks that are threads: state, variables, errors, stopping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paibook.errors import PlanError, RunCancelled, RunError, UserCodeError

SPIN = "for _ in range(10_000): time.sleep(0.01)"


def test_state_persists_between_cells(inline: Any) -> None:
    inline.run("x = rank * 10")
    assert inline.run("x += 1\nx, world_size").values == {0: (1, 2), 1: (11, 2)}
    assert inline.said("result") == [(0, {"text/plain": "(1, 2)"}), (1, {"text/plain": "(11, 2)"})]


def test_a_larger_world_keeps_the_ranks_it_had(inline: Any) -> None:
    inline.run("x = 5; mine = comm")
    answer = inline.run("comm.allreduce(1), globals().get('x'), globals().get('mine') in (comm, None)", workers=3)
    assert answer.values == {0: (3, 5, True), 1: (3, 5, True), 2: (3, None, True)}
    assert inline.run("comm.allreduce(1)").values == {0: 2, 1: 2}


def test_what_a_cell_finds(inline: Any) -> None:
    pushed = {"table": np.arange(3)}
    answer = inline.run(
        "table += rank\ntable.tolist(), hp.lr, pai.__name__, comm.Get_rank() == rank",
        variables=pushed,
        hyperparameters={"lr": 0.5},
    )
    assert answer.values[1] == ([1, 2, 3], 0.5, "paibook", True)
    assert pushed["table"].tolist() == [0, 1, 2]


def test_metrics_and_prints_carry_their_rank(inline: Any) -> None:
    inline.run("pai.log(step=rank, loss=rank / 2)\nprint('hello from', rank)")
    metrics = [metric for _, batch in inline.said("metric") for metric in batch]
    assert sorted((m.step, m.name, m.value, m.rank) for m in metrics) == [(0, "loss", 0.0, 0), (1, "loss", 0.5, 1)]
    assert [rank for rank, text in inline.said("stdout") if "hello from" in text] == [0, 1]


def test_targets_and_pull(inline: Any) -> None:
    inline.run("x = [rank]; same = {'a', 'b'}")
    answer = inline.run("x.append(0)", targets=(1,), pull=("x",))
    assert dict(answer.values) == {1: None}
    assert answer.pulled == {"x": [1, 0]}
    answer = inline.run("pass", pull=("x", "same"))
    assert answer.pulled == {"x": [0], "same": {"a", "b"}}
    assert answer.differs == {"x"}
    assert inline.run("pass", pull=("x@1",)).pulled == {"x": [1, 0]}
    assert inline.run("big = 'x' * 11_000_000; (big,)[0]").values[0][:3] == "'xx"


def test_comm_is_refused_when_ranks_are_missing(inline: Any) -> None:
    inline.run("pass", workers=3)
    with pytest.raises(UserCodeError, match="comm needs all 3 ranks, and this cell runs on ranks 0, 2 only"):
        inline.run("comm.allreduce(1)", workers=3, targets=(0, 2))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"targets": (0, 7)}, "from 0 to 1; got 7"),
        ({"pull": ("a b",)}, "--pull takes variable names"),
        ({"pull": ("x@5",)}, "--pull x@5"),
        ({"pull": ("nothing",)}, "--pull nothing: rank 0: it has no such variable"),
        ({"pull": ("time",)}, None),
        ({"options": {"backend": "smoke"}}, "--backend must be one of auto, gloo, shared.*; got 'smoke'"),
        ({"variables": {"g": (i for i in ())}}, "--push g: a generator cannot be sent"),
    ],
)
def test_plans_that_do_not_fit(inline: Any, fields: dict[str, Any], match: str | None) -> None:
    if match is None:
        with pytest.raises(PlanError, match="a generator cannot be sent"):
            inline.run("time = (i for i in ())", **fields)
        return
    with pytest.raises(PlanError, match=match):
        inline.run("x = 1", **fields)


def test_one_ranks_error_frees_the_others_and_names_its_line(inline: Any) -> None:
    inline.run("kept = rank")
    with pytest.raises(UserCodeError) as caught:
        inline.run(
            """
            if rank == 1:
                raise ValueError("boom")
            comm.allreduce(1)
            """
        )
    assert caught.value.where == "rank 1"
    assert f'File "Cell In[{inline.cells}]", line 2' in caught.value.traceback
    assert "paibook" not in caught.value.traceback
    assert isinstance(caught.value.original, ValueError)
    assert caught.value.original.__traceback__ is not None
    assert inline.run("kept, comm.allreduce(1)").values == {0: (0, 2), 1: (1, 2)}


def test_equal_errors_are_merged(inline: Any) -> None:
    with pytest.raises(UserCodeError) as caught:
        inline.run("1 / 0", workers=3)
    assert caught.value.name == "ZeroDivisionError"
    assert caught.value.traceback.count("ZeroDivisionError") == 1
    assert ": same" in caught.value.traceback
    assert inline.run("comm.allreduce(1)", workers=3).values == {0: 3, 1: 3, 2: 3}


def test_exit_in_a_cell_is_an_error_not_an_end(inline: Any) -> None:
    with pytest.raises(UserCodeError, match="SystemExit"):
        inline.run("raise SystemExit(3)")
    assert inline.run("rank").values == {0: 0, 1: 1}


def test_cancel_keeps_the_variables(inline: Any) -> None:
    inline.run("x = rank")
    error = inline.cancelled(f"import time\nprint('here')\n{SPIN}")
    assert str(error) == "the run was stopped; the ranks kept their variables"
    error = inline.cancelled("if rank == 0:\n    print('here')\n    comm.recv(source=1)")
    assert isinstance(error, RunCancelled)
    assert inline.run("x, comm.allreduce(1)").values == {0: (0, 2), 1: (1, 2)}


def test_timeout_names_who_was_running(inline: Any) -> None:
    with pytest.raises(RunError, match=r"--timeout of 0.2 s and was stopped; rank 1 was still running"):
        inline.run(f"import time\nif rank == 1:\n    {SPIN}", timeout=0.2)
    assert inline.run("comm.allreduce(1)").values == {0: 2, 1: 2}


def test_a_rank_that_ignores_the_interrupt_is_replaced(inline: Any) -> None:
    inline.run("x = rank")
    stubborn = """
    import time
    print("here")
    end = time.monotonic() + 4
    while rank == 1 and time.monotonic() < end:
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass
    """
    error = inline.cancelled(stubborn + "\n    comm.barrier()")
    assert "rank 1 did not react and had to be killed: its variables are gone; the others kept theirs" in str(error)
    assert not inline.said("stderr")
    assert inline.run("globals().get('x'), comm.allreduce(1)").values == {0: (0, 2), 1: (None, 2)}
