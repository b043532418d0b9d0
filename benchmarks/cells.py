"""Suite "cells": ranks from a notebook (n = 2), driven as a notebook page drives its kernel.

Each turn gives each side a fresh kernel: cold start to the first result, a no-op cell, 5,000 prints on each rank, an
error on one rank while the other sleeps, Stop, and ``kill -9`` of a rank. Another kernel, whose cluster runs without
any ranks, gives the time until new ranks have answered. An answer is checked before its time counts.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.comparison import Target
from benchmarks.frontend import Cell, FrontEnd
from benchmarks.sides import ALL, RANKS, Side
from benchmarks.suite import Measure, Outcome, Outcomes

COLD = Measure("cold start to first result", "s", Target(3.0))
KERNEL = Measure("no-op cell, from the kernel", "ms", Target(10.0))
FRONT = Measure("no-op cell, from a front end", "ms", Target(20.0))
PRINTS = Measure("5,000 prints x 2 ranks", "s", Target(0.5))
ERROR = Measure("error to idle, peers asleep 5 s", "s", Target(0.5))
STOP = Measure("Stop to idle", "s", Target(0.1))
SEEN = Measure("kill -9 of a rank, seen", "s", Target(0.5))
RECOVERED = Measure("kill -9 of a rank, recovered", "s", Target(3.0))
WARM = Measure("new ranks on a warm cluster, first result", "s", Target(0.5))
MEASURES = (COLD, WARM, KERNEL, FRONT, PRINTS, ERROR, STOP, SEEN, RECOVERED)
SIDES = ALL

NOOPS = 30
LINES = 5000
PATIENCE = 40.0
HELLO, HELLO_SAID = 'print(f"hello from {rank}.")', "hello from {}."
ASLEEP = "asleep {}."
SLEEP = 'import time\nprint(f"asleep {rank}.", flush=True)\ntime.sleep(90)'
# The rank that stays is done: a peer that waits for every rank before it says anything must not be charged for that.
SLEEP_OF_ONE = f"{SLEEP} if rank == 1 else None"


@dataclass
class Session:
    """A side's kernel with its ranks up."""

    side: Side
    front: FrontEnd
    cold: Outcome

    def ranks(self, code: str, timeout: float = PATIENCE) -> Cell:
        """Run code on every rank."""
        return self.front.execute(self.side.on_ranks(code), timeout)

    def send(self, code: str) -> Cell:
        """Run code on every rank without waiting."""
        return self.front.send(self.side.on_ranks(code))

    def sleeping(self, code: str) -> Cell:
        """Start a long sleep; returns when all ranks said so, or after a while where prints come late."""
        return self.front.wait(self.send(code), 2.0, lambda cell: everyone(cell, ASLEEP))


@contextmanager
def opened(side: Side) -> Iterator[Session]:
    """A fresh kernel of a side, set up, its first result seen.

    Raises:
        RuntimeError: The first result did not come; carries what came instead.
    """
    front = side.front_end()
    with front:
        for code in side.cells:
            front.execute(code)
        time.sleep(side.settle)
        notes = [f"incl. {side.settle:g} s wait"] if side.settle else []
        for _ in range(2):
            first = front.execute(side.on_ranks(HELLO))
            if everyone(first, HELLO_SAID):
                break
            # A peer may lose the first cell; a person would try again.
            notes.append("first cell lost")
        else:
            raise RuntimeError(f"no answer from every rank: {first.text[-300:]}")
        yield Session(side, front, Outcome(first.idle - front.launched, ", ".join(notes)))


def turn(side: Side) -> Outcomes:
    """Every measure once."""
    return (warm(side) if side.warm else {}) | _turn(side)


def warm(side: Side) -> Outcomes:
    """Seconds from the first request for ranks until each has answered, where the cluster runs."""
    with side.front_end() as front:
        for code in side.warm:
            front.execute(code)
        began = time.perf_counter()
        for code in side.start:
            front.execute(code)
        first = front.execute(side.on_ranks(HELLO))
        if not everyone(first, HELLO_SAID):
            return {WARM.name: Outcome(None, "no answer from every rank")}
        return {WARM.name: Outcome(first.idle - began)}


def _turn(side: Side) -> Outcomes:
    with opened(side) as session:
        outcomes = {COLD.name: session.cold, **no_op(session)}
        outcomes[PRINTS.name] = prints(session)
        outcomes[ERROR.name] = error(session)
        outcomes[STOP.name] = stop(session)
        if alive(session):
            return outcomes | kill(session)
    # Stop cost this side its ranks.
    with opened(side) as session:
        return outcomes | kill(session)


def no_op(session: Session) -> Outcomes:
    """Milliseconds of a cell that does nothing: between the kernel's busy and idle, and as the client sees it."""
    cells = [session.ranks("pass") for _ in range(NOOPS)]
    if any(cell.status != "ok" for cell in cells):
        return {KERNEL.name: Outcome(None, "failed"), FRONT.name: Outcome(None, "failed")}
    kernel = statistics.median(cell.kernel_seconds for cell in cells)
    front = statistics.median(cell.seconds for cell in cells)
    return {KERNEL.name: Outcome(1e3 * kernel), FRONT.name: Outcome(1e3 * front)}


def prints(session: Session) -> Outcome:
    """Seconds until every line of every rank was there, in order per rank."""
    cell = session.ranks(f'for i in range({LINES}):\n    print(f"tick {{rank}} {{i}}.")')
    seconds = session.front.drain(cell, 5.0, lambda cell: cell.text.count("tick ") >= LINES * RANKS)
    lines = re.findall(r"tick (\d) (\d+)\.", cell.text)
    if seconds is None:
        return Outcome(None, f"{len(lines)} of {LINES * RANKS} lines")
    in_order = all([int(i) for r, i in lines if int(r) == rank] == list(range(LINES)) for rank in range(RANKS))
    notes = ["labelled" if _labelled(cell.text) else "unlabelled", *([] if in_order else ["out of order"])]
    return Outcome(seconds, ", ".join(notes))


def error(session: Session) -> Outcome:
    """Seconds until idle when rank 1 raises at once and the others sleep 5 s."""
    cell = session.ranks('import time\nif rank == 1:\n    raise ValueError("rank one says no")\ntime.sleep(5)')
    if "rank one says no" not in cell.text or cell.status == "running":
        return Outcome(None, "error not shown")
    return Outcome(cell.seconds, "" if cell.status == "error" else "the cell counts as ok")


def stop(session: Session) -> Outcome:
    """Seconds from Stop to idle, all ranks asleep and a cell queued; notes what became of the state and the queue."""
    session.ranks("kept = 41")
    cell = session.sleeping(SLEEP)
    queued = session.send('print("the queue went on", rank)')
    pressed = time.perf_counter()
    session.front.interrupt()
    session.front.wait(cell, PATIENCE)
    if cell.status == "running":
        return Outcome(None, f"not stopped in {PATIENCE:g} s")
    session.front.wait(queued, 5.0)
    notes = ["queue aborted" if queued.status == "aborted" else "queue goes on"]
    kept = session.ranks('print(f"kept {kept + 1} on {rank}.")', 10.0)
    notes.append("state kept" if everyone(kept, "kept 42 on {}.") else "state lost")
    return Outcome(cell.idle - pressed, ", ".join(notes))


def kill(session: Session) -> Outcomes:
    """Seconds from ``kill -9`` of rank 1 until the cell ended, and until every rank answered again."""
    named = session.ranks('import os\nprint(f"pid {rank} {os.getpid()}.")')
    pids = {int(rank): int(pid) for rank, pid in re.findall(r"pid (\d) (\d+)\.", named.text)}
    if len(pids) < RANKS:
        return {SEEN.name: Outcome(None, "no answer"), RECOVERED.name: Outcome(None, "no answer")}
    cell = session.sleeping(SLEEP_OF_ONE)
    killed = time.perf_counter()
    os.kill(pids[1], signal.SIGKILL)
    session.front.wait(cell, PATIENCE)
    if cell.status == "running":
        unseen = f"not seen in {PATIENCE:g} s"
        return {SEEN.name: Outcome(None, unseen), RECOVERED.name: Outcome(None, unseen)}
    seen = Outcome(cell.idle - killed, "" if cell.status == "error" else "the cell counts as ok")
    return {SEEN.name: seen, RECOVERED.name: recovery(session, killed)}


def recovery(session: Session, killed: float) -> Outcome:
    """Seconds from the kill until a cell is answered by every rank."""
    for _ in range(3):
        answer = session.ranks(HELLO, 10.0)
        if everyone(answer, HELLO_SAID):
            return Outcome(answer.idle - killed)
        if answer.status == "running":
            break
    return Outcome(None, "group lost")


def alive(session: Session) -> bool:
    """Whether every rank still answers."""
    return everyone(session.ranks(HELLO, 10.0), HELLO_SAID)


def everyone(cell: Cell, said: str) -> bool:
    """Whether the cell shows ``said`` from every rank.

    Args:
        cell: As it stands.
        said: With ``{}`` for the rank.
    """
    text = cell.text
    return all(said.format(rank) in text for rank in range(RANKS))


def _labelled(text: str) -> bool:
    """Whether the output names its ranks beside what the ranks themselves printed."""
    return bool(
        re.search(r"(?i)\brank\W{0,3}\d|\[std(out|err):\d+\]|^\s*\[?\d\]?[:|] ", re.sub(r"tick \d \d+\.", "", text))
    )


if __name__ == "__main__":
    from benchmarks.__main__ import run_suite

    run_suite("cells", rounds=3, only=None, note="")
