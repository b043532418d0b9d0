"""Cells that go wrong: ranks that do not meet, do not match, or end; and what the error says."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from paibook.clusters import connect
from paibook.errors import RankLost, RunCancelled, RunError, UserCodeError

ARRAYS = "import numpy as np, time; a, b = np.ones(10), np.zeros(10); comm.barrier()\n"
BOTH = ["inline", pytest.param("embedded", marks=pytest.mark.slow)]


@pytest.fixture
def bench(request: Any) -> Any:
    """The bench of the cluster named."""
    return request.getfixturevalue(request.param)


MISMATCHES = [
    (
        "comm.Bcast(a) if rank == 1 else comm.Allreduce(a, b)",
        r"#2 was Allreduce of 10 float64 \(SUM\) on ranks? 0.* and",
    ),
    ("comm.Allreduce(a, b, op=comm.MAX if rank else comm.SUM)", r"\(SUM\) on rank 0 and .*\(MAX\) on ranks? 1"),
    ("c = a if rank else a.view('i8')\ncomm.Allreduce(comm.IN_PLACE, c)", "10 int64 .* on rank 0 and .* 10 float64"),
    ("comm.Bcast(a, root=min(rank, 1))\ncomm.barrier()", "from root 0 on rank 0 and .* from root 1 on rank"),
    ("for i in range(3 if rank else 2): comm.Bcast(a, root=1)", "(ended|after) "),
    ("if rank == 0: comm.barrier()", "rank 0 waits in barrier #2 .line 2., and ranks? 1.* ended the cell after 1"),
]


@pytest.mark.parametrize("bench", BOTH, indirect=True)
@pytest.mark.parametrize(("source", "match"), MISMATCHES)
def test_collectives_that_do_not_match_are_named(bench: Any, source: str, match: str) -> None:
    with pytest.raises(RunError, match=f"the ranks' collectives do not match: .*{match}"):
        bench.run(ARRAYS + source, timeout=20)
    assert bench.run("comm.allreduce(1)").values == {0: 2, 1: 2}


def test_the_check_can_be_left_out(inline: Any) -> None:
    inline.run(ARRAYS + "comm.Allreduce(a, b, op=comm.MAX if rank else comm.SUM)", options={"check": False})


@pytest.mark.parametrize("bench", BOTH, indirect=True)
def test_an_error_says_who_waited_where(bench: Any) -> None:
    with pytest.raises(UserCodeError) as caught:
        bench.run(ARRAYS + "if rank == 1: raise ValueError('boom')\ncomm.Allreduce(a, b)", workers=3)
    text = "rank 1 raised in line 2; ranks 0, 2 were in Allreduce #2 (line 3)"
    assert caught.value.traceback.endswith(text + "\n")
    if bench.cluster.reference == "inline":
        assert getattr(caught.value.original, "__notes__", None) == [text]


@pytest.mark.parametrize("bench", BOTH, indirect=True)
def test_a_rank_that_never_comes_is_named_with_its_line(bench: Any) -> None:
    source = ARRAYS + "for _ in range(3000 if rank == 1 else 0):\n    time.sleep(0.01)\ncomm.Allreduce(a, b)"
    with pytest.raises(RunError, match="--timeout") as caught:
        bench.run(source, timeout=0.5)
    assert "rank 1 was at line 3" in str(caught.value)
    assert "rank 0 was in Allreduce #2 (line 4)" in str(caught.value)


DEAF = """
import time
comm.barrier()
end = time.monotonic() + 30
while rank == 1 and time.monotonic() < end:
    try:
        time.sleep(1)
    except KeyboardInterrupt:
        pass
comm.barrier()
"""


def test_an_error_after_one_that_was_caught_is_not_placed_in_its_operation(inline: Any) -> None:
    source = """
    import numpy as np
    try:
        comm.Allreduce(np.ones(1), np.ones(2))
    except ValueError:
        pass
    if rank == 1:
        raise ValueError("boom")
    comm.barrier()
    """
    with pytest.raises(UserCodeError) as caught:
        inline.run(source)
    assert caught.value.traceback.endswith("rank 1 raised in line 7; rank 0 was in barrier #2 (line 8)\n")


@pytest.mark.slow
def test_a_rank_that_is_deaf_to_the_interrupt_is_named_with_its_line_too(embedded: Any) -> None:
    with pytest.raises(RunError, match="--timeout") as caught:
        embedded.run(DEAF, timeout=0.5)
    assert re.search(r"rank 1 was at line [4-8]", str(caught.value))
    assert "rank 0 was in barrier #2 (line 9)" in str(caught.value)
    assert embedded.run("comm.allreduce(1)").values == {0: 2, 1: 2}


@pytest.mark.parametrize("bench", BOTH, indirect=True)
def test_collectives_from_another_thread(bench: Any) -> None:
    source = "t = threading.Thread(target=lambda: comm.Allreduce(a, b))\nt.start(); t.join()\nb.sum()"
    assert bench.run("import threading\n" + ARRAYS + source).values == {0: 20, 1: 20}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "cause"),
    [
        ("os._exit(3)", "its process exited with code 3"),
        ("ctypes.string_at(0)", "its process was killed by SIGSEGV"),
        ("os.kill(os.getpid(), 9)", r"its process was killed by SIGKILL \(the system may be out of memory\)"),
    ],
)
def test_a_rank_that_ends_is_named_and_so_is_who_waited(embedded: Any, act: str, cause: str) -> None:
    with pytest.raises(RankLost, match=rf"rank 1 was lost: {cause}; rank 0 was in Allreduce #2 \(line 3\)"):
        embedded.run(ARRAYS + f"if rank == 1: import os, ctypes; {act}\ncomm.Allreduce(a, b)")
    assert embedded.run("comm.allreduce(1)").values == {0: 2, 1: 2}


@pytest.mark.parametrize("bench", BOTH, indirect=True)
def test_a_send_without_a_recv_is_told_and_costs_nothing_else(bench: Any) -> None:
    bench.run("comm.allreduce(1)")
    bench.run(
        "if rank == 0:\n    comm.send('a', dest=1)\n    comm.Send(np.ones(1_000_000), dest=1)", variables={"np": np}
    )
    assert [text for _, text in bench.said("stderr")] == [
        "2 messages were sent on comm and not received; a later cell's recv may get what was left\n"
    ]
    assert bench.run("comm.allreduce(1)").values == {0: 2, 1: 2}
    assert not bench.said("stderr")
    taken = bench.run("a = np.empty(1_000_000)\nrank and (comm.recv(source=0), comm.Recv(a, source=0), a.sum())[::2]")
    assert taken.values == {0: 0, 1: ("a", 1_000_000)}
    bench.run("comm.send(1, dest=1 - rank)")
    assert [text.split(" sent")[0] for _, text in bench.said("stderr")] == ["2 messages were"]
    assert bench.run("comm.recv(source=1 - rank)").values == {0: 1, 1: 1}


@pytest.mark.parametrize("bench", BOTH, indirect=True)
@pytest.mark.parametrize("wait", ["comm.recv(source=0)", "comm.ssend(1, dest=0)"])
def test_a_message_that_nobody_answers_is_named_when_the_time_is_over(bench: Any, wait: str) -> None:
    with pytest.raises(RunError, match=rf"rank 1 was in {wait[5:].partition('(')[0]} \(line 2\)"):
        bench.run(f"comm.barrier()\nrank and {wait}", timeout=0.5)
    assert bench.run("comm.allreduce(1)").values == {0: 2, 1: 2}


@pytest.mark.slow
def test_a_rank_that_asks_for_too_much_memory_raises_and_lives(embedded: Any) -> None:
    source = """
    import resource
    kept, before = rank, resource.getrlimit(resource.RLIMIT_AS)
    if rank == 1:
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, before[1]))
        try:
            bytearray(64 << 30)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
    comm.barrier()
    """
    with pytest.raises(UserCodeError, match="MemoryError") as caught:
        embedded.run(source)
    assert "rank 1 raised in line 6; rank 0 was in barrier #1 (line 9)" in caught.value.traceback
    assert embedded.run("kept, comm.allreduce(1)").values == {0: (0, 2), 1: (1, 2)}


@pytest.mark.slow
def test_a_fork_inside_a_rank_leaves_the_rank_whole(embedded: Any) -> None:
    source = """
    import os, sys
    total = comm.allreduce(1)
    child = os.fork()
    if child == 0:
        os._exit(7)
    total, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), comm.allreduce(1)
    """
    assert embedded.run(source).values == {0: (2, 7, 2), 1: (2, 7, 2)}
    with pytest.raises(UserCodeError, match="boom"):
        embedded.run("if rank: raise ValueError('boom')\ncomm.barrier()")
    assert embedded.run("comm.allreduce(1)").values == {0: 2, 1: 2}


@pytest.mark.slow
def test_stop_pressed_twice(embedded: Any) -> None:
    embedded.run("kept = rank")
    run, context, here = embedded.start(
        "import time\nprint('here', flush=True)\ncomm.recv() if rank else time.sleep(60)"
    )

    def press() -> None:
        here.wait(30)
        context.cancel()
        time.sleep(0.05)
        context.cancel()

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(RunCancelled, match="kept their variables"):
        run()
    assert embedded.run("kept, comm.allreduce(1)").values == {0: (0, 2), 1: (1, 2)}


@pytest.mark.slow
def test_two_notebooks_on_one_cluster_have_ranks_of_their_own(embedded: Any, tmp_path: Any) -> None:
    from tests.paibook.runtimes.allreduce.conftest import Bench

    embedded.run("mine = 'first'")
    other = Bench(connect(embedded.cluster._started().cluster), tmp_path)
    try:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(other.run, "mine = 'second'; comm.allreduce(rank + 10)")
            assert embedded.run("mine, comm.allreduce(1)").values == {0: ("first", 2), 1: ("first", 2)}
            assert answer.result(60).values == {0: 21, 1: 21}
        with pytest.raises(UserCodeError, match="boom"):
            other.run("if rank: raise ValueError('boom')\ncomm.barrier()")
        assert embedded.run("mine").values == {0: "first", 1: "first"}
    finally:
        other.cluster.close()
