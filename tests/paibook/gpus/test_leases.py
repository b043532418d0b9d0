"""The lease book, with real processes that race, end and are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.errors import PaibookError, PlanError
from paibook.gpus import Device, Holder, Lease, LeaseBook, choose, room
from paibook.gpus.holders import start_of

ROOT = Path(__file__).parents[3]
CARDS = [Device(i, "card", 2**34, f"GPU-{i}") for i in range(4)]
# Takes one card of so many, says which or why not, and holds it until its standard input is closed.
TAKER = """
import sys
from pathlib import Path
from paibook.errors import PlanError
from paibook.gpus import Device, Holder, LeaseBook
book = LeaseBook(Path(sys.argv[1]))
cards = [Device(i, "card", 2**34, f"GPU-{i}") for i in range(int(sys.argv[2]))]
print("ready", flush=True)
sys.stdin.readline()
try:
    print(*(lease.card for lease in book.take(cards, Holder.of("job", "taker"), 1)), flush=True)
except PlanError as error:
    print("refused:", error, flush=True)
sys.stdin.readline()
"""
Start = Callable[[int, int], list["subprocess.Popen[str]"]]


@pytest.fixture
def book(tmp_path: Path) -> LeaseBook:
    return LeaseBook(tmp_path / "leases")


@pytest.fixture
def start(book: LeaseBook) -> Iterator[Start]:
    """Starts takers, and waits until all of them are about to take."""
    started: list[subprocess.Popen[str]] = []

    def start(count: int, cards: int) -> list[subprocess.Popen[str]]:
        for _ in range(count):
            command = [sys.executable, "-c", TAKER, str(book.folder), str(cards)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            started.append(
                subprocess.Popen(
                    command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
                )
            )
        assert [said(process) for process in started] == ["ready"] * count
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def me(kind: str = "kernel", name: str = "test") -> Holder:
    return Holder.of(kind, name)  # type: ignore[arg-type]


def test_of_processes_that_take_one_card_at_the_same_moment_exactly_one_gets_it(start: Start, book: LeaseBook) -> None:
    takers = start(6, 1)
    for taker in takers:
        go(taker)
    answers = [said(taker) for taker in takers]
    assert sorted(answers)[0] == "GPU-0"
    refused = [
        answer for answer in answers if answer.startswith("refused: 1 GPU asked for: GPU 0 (card) is held by job")
    ]
    assert len(refused) == 5
    assert len(book.held()) == 1


def test_of_processes_that_race_for_many_cards_each_gets_one_of_its_own(start: Start) -> None:
    takers = start(4, 4)
    for taker in takers:
        go(taker)
    assert sorted(said(taker) for taker in takers) == [card.uuid for card in CARDS]


def test_the_lease_of_a_process_that_was_killed_is_taken_back(start: Start, book: LeaseBook) -> None:
    (taker,) = start(1, 1)
    go(taker)
    assert said(taker) == "GPU-0"
    with pytest.raises(PlanError, match=rf"held by job taker \(process {taker.pid}\)"):
        book.take(CARDS[:1], me(), 1)
    taker.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, taker.pid, os.WEXITED | os.WNOWAIT)  # a zombie, which holds nothing
    assert book.held() == []
    assert [lease.card for lease in book.take(CARDS[:1], me(), 1)] == ["GPU-0"]


def test_a_later_process_with_the_same_number_does_not_hold_the_card(book: LeaseBook) -> None:
    earlier = Holder("job", "earlier", os.getpid(), (start_of(os.getpid()) or 0) - 1)
    book.take(CARDS[:1], earlier)
    assert book.held() == []


def test_what_was_taken_together_is_given_back_together(book: LeaseBook) -> None:
    taken = book.take(CARDS, me(), 3)
    other = book.take(CARDS, me(), 1)
    book.give_back(taken[0].id)
    assert book.held() == other


def test_all_or_none(book: LeaseBook) -> None:
    book.take(CARDS[1:2], me())
    with pytest.raises(PlanError, match="GPU 1"):
        book.take(CARDS[:3], me())
    with pytest.raises(PlanError, match="4 GPUs asked for: GPU 1"):
        book.take(CARDS, me(), 4)
    assert len(book.held()) == 1


def test_a_lease_is_handed_over_to_another_process(start: Start, book: LeaseBook) -> None:
    (process,) = start(1, 1)
    (lease,) = book.take(CARDS, me(), 1)
    book.hand_over(lease.id, process.pid)
    assert [held.holder.pid for held in book.held()] == [process.pid]
    process.kill()
    process.wait()
    assert book.held() == []


def test_shares_fill_a_card_and_no_more(book: LeaseBook) -> None:
    for _ in range(2):
        book.take(CARDS[:1], me(), share=50)
    with pytest.raises(PlanError, match=r"50% of 1 GPU asked for: GPU 0 \(card\) is held by .*, 50% and .*, 50%"):
        book.take(CARDS[:1], me(), share=50)
    with pytest.raises(PlanError, match="1 to 100 percent; got 0"):
        book.take(CARDS[:1], me(), share=0)


def test_pack_fills_the_fullest_and_spread_the_emptiest(book: LeaseBook) -> None:
    book.take(CARDS[1:2], me(), share=40)
    assert [lease.card for lease in book.take(CARDS, me(), 1, share=40, policy="pack")] == ["GPU-1"]
    assert [lease.card for lease in book.take(CARDS, me(), 2, share=40, policy="spread")] == ["GPU-0", "GPU-2"]


def test_ranks_take_parts_of_what_their_kernel_holds(book: LeaseBook) -> None:
    (kernels,) = book.take(CARDS[2:3], me(), 1)
    (part,) = book.take(CARDS, me("rank"), 1, within=kernels.id)
    assert (part.card, part.within) == ("GPU-2", kernels.id)
    (outside,) = book.take(CARDS, me("rank"), 1, within=kernels.id)  # the kernel's card is full by now
    assert (outside.card, outside.within) == ("GPU-0", "")
    book.give_back(kernels.id)
    assert room("GPU-2", book.held()) == 0  # the rank has it still


def test_a_book_that_cannot_be_written_or_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PaibookError, match="set PAIBOOK_LEASES to a folder you own"):
        LeaseBook(tmp_path / "file").take(CARDS, me(), 1)
    book = LeaseBook(tmp_path)
    book.take(CARDS, me(), 1)
    (written,) = tmp_path.glob("*.json")
    written.write_text("[{}]")
    with pytest.raises(PaibookError, match="is not a lease book"):
        book.held()


def test_nothing_but_the_book_and_its_lock_is_left(book: LeaseBook) -> None:
    book.give_back(book.take(CARDS, me(), 2)[0].id)
    assert {path.suffix for path in book.folder.iterdir()} <= {".json", ".lock"}
    assert book.held() == []


shares = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 100)), max_size=12)


@given(shares, st.integers(1, 4), st.integers(1, 100), st.sampled_from(["pack", "spread"]))
def test_a_card_that_is_chosen_has_room(before: list[tuple[int, int]], count: int, share: int, policy: str) -> None:
    holder = Holder("job", "x", 1, 1.0)
    leases: list[Lease] = []
    for number, (card, part) in enumerate(before):
        if room(f"GPU-{card}", leases) >= part:
            leases.append(Lease(str(number), f"GPU-{card}", part, holder, 0.0))
    fitting = [card for card in CARDS if room(card.uuid, leases) >= share]
    if len(fitting) < count:
        with pytest.raises(PlanError):
            choose(CARDS, leases, count, share, policy)  # type: ignore[arg-type]
        return
    chosen = choose(CARDS, leases, count, share, policy)  # type: ignore[arg-type]
    assert len({card.uuid for card in chosen}) == count
    assert set(chosen) <= set(fitting)
