"""How runs end: errors, early returns, cancelling, and plans that are refused."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from paibook.comms.wire import ChannelClosed, accept, listen, new_token
from paibook.errors import PlanError, ProgramError, RunCancelled, RunError, UserCodeError
from paibook.runtimes.ps import service
from paibook.runtimes.ps.control import Control
from paibook.runtimes.ps.driver import Driver

LOOP = """
    def train(ps):
        w = ps.table("w", shape=4, dtype="float64", optimizer=pai.SGD(lr=1.0))
        for epoch in ps.clocks({clocks}):
            weights = w.pull()
            {body}
            w.push(weights - 1)
        return epoch
"""


def loop(body: str = "pass", clocks: int | str = 5) -> str:
    return LOOP.format(body=body, clocks=clocks)


def test_the_first_failing_worker_is_the_error_and_the_ranks_go_on(bench: Any) -> None:
    for consistency in ("bsp", "ssp", "asp"):
        with pytest.raises(UserCodeError) as caught:
            bench.run(loop("if rank == 1 and epoch == 3: raise ValueError('boom')", ""), consistency=consistency)
        assert caught.value.where == "rank 1"
        assert caught.value.name == "ValueError"
        assert 'File "Cell In[1]", line 7, in train' in caught.value.traceback
        assert "paibook" not in caught.value.traceback
    assert bench.run(loop()).clock == 5


def test_a_worker_that_returns_early_holds_nobody_up(bench: Any) -> None:
    cell = loop("if rank == 1 and epoch == 2: return 'early'", 6)
    for consistency in ("bsp", "ssp", "asp"):
        result = bench.run(cell, consistency=consistency)
        assert result.returned == (5, "early", 5)
        assert result.clock == 6


def test_what_a_leaving_worker_pushed_in_its_last_clock_counts(bench: Any) -> None:
    cell = """
    def train(ps):
        w = ps.table("w", shape=1, dtype="float64", optimizer=pai.SGD(lr=1.0))
        for epoch in ps.clocks(3):
            w.push([1.0])
            if rank == 0:
                return w.pull()[0]
        return w.pull()[0]
    """
    result = bench.run(cell, workers=2, servers=1)
    assert result.tables["w"].tolist() == [-4]
    assert result.returned == (0, -4)


def test_after_the_loop_a_pull_sees_every_update(bench: Any) -> None:
    cell = loop("pass", "").replace("return epoch", "return w.pull()")
    result = bench.run(cell, until="epoch >= 3")
    assert all(np.array_equal(weights, result.tables["w"]) for weights in result.returned)


def test_an_update_that_raises_names_the_server_and_the_cells_line(bench: Any) -> None:
    cell = loop().replace(", optimizer=pai.SGD(lr=1.0)", "")
    cell += "\n    def update(weight, grad):\n        return weight - missing * grad\n"
    for consistency in ("bsp", "asp"):
        with pytest.raises(UserCodeError, match=r"server rank \d: NameError: name 'missing'") as caught:
            bench.run(cell, consistency=consistency)
        assert "in update" in caught.value.traceback


def test_the_users_update_sees_hyperparameters_and_constants(bench: Any) -> None:
    cell = loop(clocks=1).replace(", optimizer=pai.SGD(lr=1.0)", "")
    cell += "\n    scale = 4.0\n    def update(weight, grad):\n        return weight - hp.lr * scale * grad\n"
    assert bench.run(cell, workers=2).tables["w"].tolist() == [4] * 4


@pytest.mark.parametrize("top", ["1 / 0", "import no_such_module"])
def test_a_cell_that_fails_before_train(bench: Any, top: str) -> None:
    with pytest.raises(UserCodeError, match=r"ZeroDivisionError|no_such_module"):
        bench.run(f"\n    {top}\n{loop()}")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("w.push(weights[:2])", "table 'w' expects a gradient of shape (4,); got (2,)"),
        ("w.push([1, 2], [[1.0], [2.0]])", "expects a gradient of shape (2,); got (2, 1)"),
        ("w.push(weights + 1j)", "table 'w' holds float64; got a gradient of complex128"),
        (
            "ps.table('h', shape=2, dtype='float16', optimizer=pai.SGD()).push([1e6, 1.0])",
            "gradient of 1e+06 does not fit",
        ),
        ("w.push()", "push takes (grad) or (keys, grads); got 0"),
        ("w.pull([0, 4])", "table 'w' has rows 0 to 3; got row 4"),
        ("w.pull([-1])", "got row -1"),
        ("w.pull([0.5])", "table 'w': keys must be integers in one dimension; got float64"),
        ("w.pull([[1]])", "of shape (1, 1)"),
        ("ps.table('w', shape=5, dtype='float64', optimizer=pai.SGD(lr=1.0))", "now shape (5,) instead of (4,)"),
        (
            "ps.table('b', shape=10**14, optimizer=pai.SGD())",
            "table 'b': its 100000000000000 rows do not fit into memory",
        ),
        ("ps.table('b', shape=10**20, optimizer=pai.SGD())", "of one of 2 servers take 1.863e+11 GiB"),
        ("ps.table('v', shape=5)", "table 'v': it has no optimizer"),
        ("ps.table('e', sparse=True, optimizer=pai.SGD()).pull()", "table 'e' is sparse: pull() without keys"),
        ("ps.table('e', sparse=True, optimizer=pai.SGD()).pull([2**63])", "keys must fit int64"),
        (
            "ps.table('e', sparse=True, optimizer=pai.SGD()).pull(['a', 5])",
            "integers, or texts, in one dimension; got int and str",
        ),
        ("ps.table('e', sparse=True, optimizer=pai.SGD()).push((5, 'a'), [1.0, 1.0])", "got int and str of shape (2,)"),
        ("w.pull(['a', 5])", "keys must be integers in one dimension; got int and str"),
    ],
)
def test_a_table_used_wrongly_says_how(bench: Any, use: str, message: str) -> None:
    with pytest.raises(UserCodeError) as caught:
        bench.run(loop(use), workers=1)
    assert message in caught.value.message
    assert caught.value.name == "TableError"
    assert "client.py" not in caught.value.traceback


def test_a_refused_declaration_leaves_the_connection_usable(bench: Any) -> None:
    cell = """
    def train(ps):
        w = ps.table("w", shape=4, optimizer=pai.SGD())
        try:
            ps.table("w", shape=5, optimizer=pai.SGD())
        except ValueError as error:
            return w.pull().sum(), str(error)
    """
    assert bench.run(cell).returned[0] == (
        0,
        "table 'w' was declared before, and differently: now shape (5,) instead of (4,)",
    )


@pytest.mark.parametrize("blocked", ["ps.clock(), w.pull()", "ps.clock()", "[time.sleep(0.01) for _ in range(10**5)]"])
@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_cancelling_frees_workers_wherever_they_are(bench: Any, blocked: str, consistency: str) -> None:
    cell = f"""
    import time
    def train(ps):
        w = ps.table("w", shape=4, optimizer=pai.SGD())
        if rank == 0:
            print("ready", flush=True)
            while True: time.sleep(0.01)
        {blocked}
        while True: time.sleep(0.01)
    """
    ready = threading.Event()
    context = bench.context(lambda event: ready.set() if event.kind == "stdout" else None)
    threading.Thread(target=lambda: (ready.wait(20), context.cancel()), daemon=True).start()
    with pytest.raises(RunCancelled, match="stopped; the ranks kept their variables"):
        bench.run(cell, context, consistency=consistency)
    assert bench.run(loop()).clock == 5


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_threads_of_a_worker_take_turns(bench: Any, consistency: str) -> None:
    cell = """
    from concurrent.futures import ThreadPoolExecutor
    import numpy as np

    def train(ps):
        w = ps.table("w", shape=6, optimizer=pai.SGD(lr=1.0))
        def work(number):
            for _ in range(30):
                w.push([number], [1.0])
                ticket = w.prefetch([number, 5])
                assert ticket.result().shape == w.pull([0, 1]).shape == (2,)
        with ThreadPoolExecutor(5) as pool:
            for clock in ps.clocks(2):
                list(pool.map(work, range(5)))
        return w.pull().tolist()
    """
    result = bench.run(cell, workers=1, servers=2, consistency=consistency, timeout=20)
    assert result.returned == ([-60.0] * 5 + [0.0],)


def test_a_run_that_takes_too_long_is_stopped(bench: Any) -> None:
    with pytest.raises(RunError, match=r"longer than its --timeout of 0\.5 s"):
        bench.run(loop("pass", ""), timeout=0.5)
    assert bench.run(loop()).clock == 5


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_an_endless_should_stop_does_not_keep_a_run_from_being_stopped(
    bench: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "END_SECONDS", 0.2)
    cell = """
    import time
    def should_stop(status):
        asked.set()
        try:
            while True: time.sleep(0.01)
        finally:
            ended.set()

    def train(ps):
        for epoch in ps.clocks(): pass
    """
    asked, ended = threading.Event(), threading.Event()
    context = bench.context(asked=asked, ended=ended)
    if how == "cancel":
        threading.Thread(target=lambda: (asked.wait(20), context.cancel()), daemon=True).start()
    with pytest.raises(RunCancelled if how == "cancel" else RunError, match="stopped"):
        bench.run(cell, context, timeout=1 if how == "timeout" else 60)
    assert asked.is_set()
    assert ended.wait(10)
    assert not any("did not stop" in str(event.data) for event in bench.events)
    assert bench.run(loop()).clock == 5


def test_stop_frees_a_driver_that_waits_for_an_answer() -> None:
    """Of a coordinator that is there and says nothing."""
    with listen() as listener, ThreadPoolExecutor(1) as pool:
        token = new_token()
        accepting = pool.submit(lambda: accept(listener.accept()[0], token))
        control = Control(listener.getsockname(), token)
        silent = []

        def close() -> None:
            silent.append(accepting.result(10))
            control.close()

        threading.Thread(target=close, daemon=True).start()
        with pytest.raises(ChannelClosed):
            control.status()
        silent[0].close()


def test_a_condition_on_a_metric_nobody_logs_is_told_at_the_end(bench: Any) -> None:
    result = bench.run(loop("pai.log(step=epoch, loss=0.5)"), until="lss < 0.1")
    assert "looks at 'lss', which no rank ever logged (logged: loss); did you mean 'loss'?" in result.reason
    assert any(event.kind == "stderr" and "'lss'" in event.data for event in bench.events)


def test_seconds_end_a_run_under_every_consistency(bench: Any) -> None:
    for consistency in ("bsp", "ssp", "asp"):
        result = bench.run(loop("pass", ""), until="seconds > 0.2", consistency=consistency, staleness=1)
        assert "seconds = 0." in result.reason


def test_tables_too_large_to_bring_home_are_left(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Control, "fetch", functools.partialmethod(Control.fetch, limit=31))
    result = bench.run(loop())
    assert result.size == 32
    assert "not fetched" in repr(result)
    with pytest.raises(RunError, match="let train"):
        _ = result.tables


def test_what_train_returns_stays_when_it_cannot_be_sent(bench: Any) -> None:
    result = bench.run("\n    import threading\n    def train(ps):\n        return threading.Lock()\n")
    assert result.returned == (None,) * 3
    assert any(event.kind == "stderr" and "stays on the rank" in event.data for event in bench.events)


def test_the_last_expression_is_shown_per_rank(bench: Any) -> None:
    bench.run(loop() + "\n    rank * 10\n")
    shown = {event.rank: event.data["text/plain"] for event in bench.events if event.kind == "result"}
    assert shown == {0: "0", 1: "10", 2: "20"}


def test_pulled_variables_come_back_with_the_result(bench: Any) -> None:
    cell = """
    best, curve = None, []
    def train(ps):
        global best, late
        for epoch in ps.clocks(3):
            curve.append(epoch)
        best, late = rank, "late"
    """
    result = bench.run(cell, pull=("curve", "best", "late"))
    assert result.pulled == {"curve": [0, 1, 2], "best": 0, "late": "late"}
    assert result.differs == {"best"}
    result = bench.run(cell, pull=("best@2",))
    assert (result.pulled, result.differs, result.clock) == ({"best": 2}, frozenset(), 3)
    assert bench.run(cell).pulled == {}


def test_a_pull_that_cannot_be_is_refused_before_training(bench: Any) -> None:
    cell = loop("print('trains')")
    with pytest.raises(UserCodeError, match="PlanError: --pull epoch: the cell has no such variable at its top level"):
        bench.run(cell, pull=("epoch",))
    assert not [event for event in bench.events if event.kind == "stdout"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"servers": 0}, "--servers 1"),
        ({"consistency": "bps"}, "--consistency takes bsp, ssp or asp; got 'bps'"),
        ({"consistency": "ssp", "staleness": -1}, "--staleness takes"),
        ({"until": "loss <"}, "--until 'loss <'"),
        ({"max_restarts": -1}, "--max-restarts takes a whole number, 0 or more; got -1"),
        ({"max_restarts": "x"}, "--max-restarts takes a whole number, 0 or more; got 'x'"),
        ({"pull": ("w@3",)}, "--pull w@3: there are ranks 0 to 2"),
        ({"pull": ("w 1",)}, "--pull takes variable names"),
    ],
)
def test_plans_refused_before_anything_starts(bench: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Driver().check(bench.plan(loop(), **changes))


@pytest.mark.parametrize("options", [{}, {"checkpoint_every": 2, "nan": "never"}])
def test_a_refused_plan_leaves_no_folder(bench: Any, options: dict[str, Any]) -> None:
    folder = bench.directory / "saved"
    with pytest.raises(PlanError, match=r"none is written without|--nan takes"):
        Driver().check(bench.plan(loop(), checkpoint=str(folder), **options))
    assert not folder.exists()


@pytest.mark.parametrize(
    "cell", ["\n    x = 1\n", "\n    def train(): pass\n", "\n    def train(ps): pass\n    def update(w): pass\n"]
)
def test_cells_refused_before_anything_starts(bench: Any, cell: str) -> None:
    with pytest.raises(ProgramError, match="%%pai_ps"):
        Driver().check(bench.plan(cell))


@pytest.mark.parametrize("name", ["train", "should_stop"])
def test_a_function_that_yields_is_refused(bench: Any, name: str) -> None:
    cell = "\n    def train(ps):\n        def parts():\n            yield 1\n        return [0, *parts()]\n"
    cell += "    def should_stop(status): return [(lambda: (yield)) for _ in range(3)]\n"
    Driver().check(bench.plan(cell))
    with pytest.raises(ProgramError, match=rf"'{name}' in Cell In\[1\], line \d has a `yield`"):
        Driver().check(
            bench.plan(cell.replace("return", "yield") if name == "train" else cell.replace("return [(", "yield [("))
        )


def test_workers_get_their_shards(bench: Any) -> None:
    cell = """
        def train(ps):
            ps.table("w", shape=1, optimizer=pai.SGD(lr=1.0))
            return list(pai.shard(list(range(7))))
    """
    assert bench.run(cell).returned == ([0, 1], [2, 3], [4, 5, 6])
