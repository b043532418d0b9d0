"""Cells that keep a state, and ranks that die under them: real processes, killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paibook.errors import ProgramError, RankLost, RunCancelled, UserCodeError

TRAIN = """
import numpy as np, time
weights = np.zeros(1000)
draws = np.random.default_rng(rank)
state = pai.state(weights=weights, step=0, draws=draws, per_rank=["draws"])
begun = state.step
print("begins at", state.step, flush=True)
for state.step in range(state.step, {steps}):
    if state.step % 5 == 0:
        state.commit()
    gradient = weights - state.draws.normal(size=1000)
    comm.Allreduce(comm.IN_PLACE, gradient)
    weights -= 0.1 * gradient
    if state.step >= 7: print("here", flush=True)
    time.sleep(0.005)
begun, float(weights.sum()), world_size
"""
REFERENCE = """
import numpy as np
weights = np.zeros(1000)
draws = [np.random.default_rng(rank) for rank in range({size})]
for step in range({steps}):
    gradient = sum(weights - draw.normal(size=1000) for draw in draws)
    weights -= 0.1 * gradient
"""


def train(steps: int) -> str:
    return TRAIN.replace("{steps}", str(steps))


def undisturbed(steps: int, size: int = 2) -> float:
    found: dict[str, Any] = {}
    exec(REFERENCE.format(steps=steps, size=size), found)
    return float(found["weights"].sum())


class Killer:
    """Kills a rank's process while a cell runs."""

    def __init__(self, bench: Any) -> None:
        self._bench = bench
        self._threads: list[threading.Thread] = []

    def kill(self, rank: int, after: float = 0.0, when: Callable[[], bool] = lambda: True) -> None:
        """End the rank ``after`` seconds from when ``when`` holds."""
        # Asked now: on a busy machine the answer may come after the cell has ended.
        pid = self._bench.cluster.ranks(2).status()[rank].pid

        def act() -> None:
            end = time.monotonic() + 30
            while not when() and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(after)
            os.kill(pid, signal.SIGKILL)

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        self._threads.append(thread)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)


@pytest.fixture
def killer(embedded: Any) -> Iterator[Killer]:
    made = Killer(embedded)
    yield made
    made.join()


def notes(bench: Any) -> str:
    return "".join(text for _, text in bench.said("stderr"))


def begins(bench: Any) -> int:
    return sum(text.count("begins at") for _, text in bench.said("stdout"))


# Threads


def test_a_state_on_threads(inline: Any) -> None:
    answer = inline.run(train(20))
    assert answer.values[0][1] == pytest.approx(undisturbed(20))


def test_a_state_outside_a_rank_is_refused() -> None:
    import paibook as pai

    with pytest.raises(ProgramError, match=r"pai\.state works in a %%pai_allreduce cell"):
        pai.state(step=0)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("pai.state(a=1); pai.state(b=2)", "this cell has a state"),
        ("pai.state(a=1, per_rank=['b'])", "no entry 'b'; it has a"),
        ("pai.state(a=1, per_rank='a')", "takes a list of names"),
        ("pai.state(commit=1)", "cannot be called 'commit'"),
        ("pai.state(a=1).b", "has no entry 'b'"),
        ("s = pai.state(a=1)\ns.b = 2", r"register it: pai.state\(b=...\)"),
        ("pai.state(a=1).commit(b=2)", "no entry 'b'"),
        ("pai.state(a=(i for i in ()))", "cannot send a dict to another rank: cannot pickle 'generator'"),
    ],
)
def test_states_that_cannot_be(inline: Any, source: str, match: str) -> None:
    with pytest.raises(UserCodeError, match=match):
        inline.run(source)


def test_a_state_ends_with_its_cell(inline: Any) -> None:
    inline.run("s = pai.state(step=3)")
    assert inline.run("s.step").values[0] == 3
    with pytest.raises(UserCodeError, match="belongs to a cell that has ended"):
        inline.run("s.commit()")


def test_a_checkpoint_folder_outlives_its_run(inline: Any, tmp_path: Path) -> None:
    source = f"""
    import numpy as np
    state = pai.state(w=np.zeros(2), step=0, mine=rank, per_rank=["mine"], folder={str(tmp_path)!r})
    first = state.step, state.mine
    for state.step in range(state.step, state.step + 3):
        state.w += 1
        state.commit(step=state.step + 1)
    first, state.w.tolist()
    """
    assert inline.run(source).values == {0: ((0, 0), [3, 3]), 1: ((0, 1), [3, 3])}
    assert inline.run(source).values == {0: ((3, 0), [6, 6]), 1: ((3, 1), [6, 6])}
    assert "training goes on from commit 3 (step 3) of the checkpoint folder" in str(inline.said("stdout"))
    answer = inline.run(source, workers=1)
    assert answer.values == {0: ((6, {0: 0, 1: 1}), [9, 9])}


# Processes


@pytest.mark.slow
def test_a_killed_rank_costs_the_steps_since_the_last_commit(embedded: Any, killer: Killer) -> None:
    embedded.run("kept = rank")
    run, _context, here = embedded.start(train(400))
    killer.kill(1, 0.2, here.is_set)
    answer = run()
    assert answer.values[0][1] == answer.values[1][1] == pytest.approx(undisturbed(400))
    assert 5 <= answer.values[0][0] < 400
    text = notes(embedded)
    assert (
        "rank 1 was killed by SIGKILL (the system may be out of memory); replaced; training goes on from commit" in text
    )
    assert text.endswith(f"(step {answer.values[0][0]}) on 2 ranks\n")
    assert embedded.run("globals().get('kept'), comm.allreduce(1)").values == {0: (0, 2), 1: (None, 2)}
    assert not notes(embedded)


@pytest.mark.slow
def test_any_rank_may_die_at_any_moment(embedded: Any, killer: Killer) -> None:
    chance = random.Random(3)
    expected = undisturbed(120)
    for _ in range(4):
        run, _context, here = embedded.start(train(120))
        rank = chance.randrange(2)
        killer.kill(rank, chance.uniform(0, 0.5), here.is_set)
        if chance.random() < 0.5:  # and again: while the group is formed anew, or later
            bench = embedded
            killer.kill(1 - rank, chance.uniform(0, 1.0), lambda bench=bench: "replaced" in notes(bench))
        answer = run()
        killer.join()
        assert answer.values[0][1] == answer.values[1][1] == pytest.approx(expected)


@pytest.mark.slow
def test_when_all_ranks_die_at_once_the_folder_is_left(embedded: Any, killer: Killer, tmp_path: Path) -> None:
    source = train(300).replace('per_rank=["draws"]', f'per_rank=["draws"], folder="{tmp_path}"')
    run, _context, here = embedded.start(source)
    killer.kill(0, 0, here.is_set)
    killer.kill(1, 0, here.is_set)
    answer = run()
    assert answer.values[0][0] >= 5
    assert answer.values[0][1] == answer.values[1][1] == pytest.approx(undisturbed(300))
    assert "of the checkpoint folder" in str(embedded.said("stdout"))


@pytest.mark.slow
def test_a_cell_without_a_state_ends_with_its_rank(embedded: Any, killer: Killer) -> None:
    run, _context, here = embedded.start("print('here', flush=True)\nimport time; time.sleep(60)")
    killer.kill(0, 0, here.is_set)
    with pytest.raises(RankLost, match="worker rank 0 was lost"):
        run()


@pytest.mark.slow
def test_an_exception_is_not_tried_again(embedded: Any) -> None:
    with pytest.raises(UserCodeError, match="boom"):
        embedded.run("pai.state(step=0)\nprint('begins at', rank)\nif rank: raise ValueError('boom')\ncomm.barrier()")
    assert begins(embedded) == 2


@pytest.mark.slow
def test_a_cell_that_kills_its_rank_at_one_step_ends(embedded: Any) -> None:
    source = train(50).replace(
        "    gradient =", "    if rank == 1 and state.step == 8: import os; os._exit(9)\n    gradient ="
    )
    with pytest.raises(RankLost) as caught:
        embedded.run(source, options={"max_restarts": 1})
    assert "rank 1 was lost: its process exited with code 9" in str(caught.value)
    assert "death 2, and --max-restarts is 1. It was at step 8 every time" in str(caught.value)
    assert "goes on from commit 2 (step 5) on 2 ranks" in notes(embedded)
    assert embedded.run("comm.allreduce(1)").values == {0: 2, 1: 2}


@pytest.mark.slow
def test_stop_during_recovery(embedded: Any, killer: Killer) -> None:
    run, context, here = embedded.start(train(100_000))
    killer.kill(1, 0, here.is_set)
    pid = embedded.cluster.status().ranks[1].pid

    def stop() -> None:
        while any(rank.pid == pid and rank.state != "lost" for rank in embedded.cluster.status().ranks):
            time.sleep(0.02)
        context.cancel()

    stopper = threading.Thread(target=lambda: here.wait(30) and stop(), daemon=True)
    stopper.start()
    with pytest.raises(RunCancelled):
        run()
    stopper.join(30)
    assert embedded.run("comm.allreduce(1)").values == {0: 2, 1: 2}


DDP = """
import time, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo")
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
state = pai.state(model=model, optimizer=optimizer, step=0)
begun = state.step
for state.step in range(state.step, 250):
    if state.step % 4 == 0:
        state.commit()
    rows = torch.randn(16, 8, generator=torch.Generator().manual_seed(100 * state.step + rank))
    optimizer.zero_grad()
    model(rows).square().sum().backward()
    optimizer.step()
    if state.step >= 10: print("here", flush=True)
    time.sleep(0.01)
dist.destroy_process_group()
begun, torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy().tobytes()
"""


@pytest.mark.slow
def test_weights_of_a_disturbed_training_are_those_of_an_undisturbed_one(embedded: Any, killer: Killer) -> None:
    expected = embedded.run(DDP).values[0][1]
    run, _context, here = embedded.start(DDP)
    killer.kill(0, 0, here.is_set)
    answer = run()
    assert answer.values[0][0] > 0, notes(embedded)
    assert [answer.values[rank][1] for rank in range(2)] == [expected, expected]
