"""The contract of ``paibook.clusters.contract``, run against every kind of cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest

from paibook.clusters.contract import Cluster, Event, Place
from paibook.clusters.inline import InlineCluster
from paibook.errors import ClusterError, RankLost, UserCodeError
from paibook.metrics import Recorder, log, recording
from paibook.program import capture_error

pytestmark = pytest.mark.slow
WAIT = 30


def remember(place: Place, name: str, value: Any) -> int:
    place.namespace[name] = value
    return place.rank


def recall(place: Place, name: str) -> Any:
    return place.namespace.get(name)


def change_first(place: Place, array: Any, raw: bytes, own: Any) -> tuple[float, float, int, int]:
    array[0] += 100
    own[0] += 0
    return float(array[0]), float(array.sum()), len(raw), int(own.sum())


def speak(place: Place, lines: int) -> str:
    for i in range(lines):
        print(f"line {i} of {place.rank}")
    with recording(Recorder(lambda batch: place.emit("metric", batch), place.rank)):
        log(step=1, loss=0.5 + place.rank)
    place.emit("result", place.format(np.arange(3)))
    return "spoken"


def fail_on(place: Place, rank: int) -> int:
    if place.rank == rank:
        try:
            return 1 // 0
        except ZeroDivisionError as error:
            raise capture_error(error, f"rank {rank}") from error
    return place.rank


def wait_long(place: Place) -> None:
    place.emit("stdout", "waiting")
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        time.sleep(0.01)


def process_id(place: Place) -> int:
    return os.getpid()


def vanish(place: Place, how: str) -> None:
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


def results(pending: list[Any]) -> list[Any]:
    return [p.result(WAIT) for p in pending]


def started(ranks: Any, function: Any, *args: Any) -> list[Any]:
    """Apply, and return once every rank has said that it is in the function."""
    inside = threading.Semaphore(0)
    pending = ranks.apply(function, *args, on_event=lambda event: inside.release())
    for _ in range(ranks.size):
        assert inside.acquire(timeout=WAIT)
    return pending


def needs_processes(cluster: Cluster) -> None:
    if isinstance(cluster, InlineCluster):
        pytest.skip("its ranks are threads of this process")


def wait_for_word(place: Place, word: str) -> bool:
    place.emit("stdout", "here")
    deadline = time.monotonic() + WAIT
    while not place.noticed(word) and time.monotonic() < deadline:
        time.sleep(0.01)
    return place.noticed(word)


def has_word(place: Place, word: str) -> bool:
    return place.noticed(word)


class TestRanks:
    def test_a_group_has_the_size_asked_for_and_ranks_from_zero(self, cluster: Cluster) -> None:
        assert results(cluster.ranks(2).apply(remember, "x", 1)) == [0, 1]

    def test_variables_live_from_call_to_call_and_as_the_group_grows(self, cluster: Cluster) -> None:
        results(cluster.ranks(2).apply(remember, "kept", "yes"))
        assert results(cluster.ranks(3).apply(recall, "kept")) == ["yes", "yes", None]
        assert results(cluster.ranks(1).apply(recall, "kept")) == ["yes"]

    def test_no_size_means_the_group_there_is(self, cluster: Cluster) -> None:
        cluster.restart()
        assert cluster.ranks(0).size >= 1
        cluster.restart()
        results(cluster.ranks(3).apply(remember, "kept", 3))
        assert results(cluster.ranks(0).apply(recall, "kept")) == [3, 3, 3]

    def test_buffers_arrive_whole_writable_and_as_they_were(self, cluster: Cluster) -> None:
        needs_processes(cluster)
        array = np.arange(50_000.0)
        pending = cluster.ranks(2).apply(change_first, array, bytes(5_000), each=lambda rank: (np.full(3_000, rank),))
        array[:] = 0
        assert results(pending) == [(100.0, np.arange(50_000.0).sum() + 100, 5_000, 3_000 * r) for r in range(2)]

    def test_roles_do_not_share_variables(self, cluster: Cluster) -> None:
        cluster.restart()
        results(cluster.ranks(1).apply(remember, "mine", 1))
        assert results(cluster.ranks(1, role="server").apply(recall, "mine")) == [None]

    def test_each_gives_ranks_their_own_arguments(self, cluster: Cluster) -> None:
        ranks = cluster.ranks(2)
        results(ranks.apply(remember, "part", each=lambda rank: (np.full(4, rank),)))
        parts = results(ranks.apply(recall, "part"))
        assert [part.tolist() for part in parts] == [[0] * 4, [1] * 4]

    def test_a_subset_can_be_addressed(self, cluster: Cluster) -> None:
        assert results(cluster.ranks(2).apply(remember, "y", 2, ranks=[1])) == [1]

    def test_a_word_reaches_the_call_that_runs_and_no_other(self, cluster: Cluster) -> None:
        ranks = cluster.ranks(2)
        ranks.notify("early")
        pending = started(ranks, wait_for_word, "go")
        ranks.notify("stay")
        ranks.notify("go")
        assert results(pending) == [True, True]
        for word in ("early", "stay", "go"):
            assert results(ranks.apply(has_word, word)) == [False, False]

    def test_calls_on_a_rank_run_in_order(self, cluster: Cluster) -> None:
        ranks = cluster.ranks(1)
        pending = [p for i in range(20) for p in ranks.apply(remember, "last", i)]
        results(pending)
        assert results(ranks.apply(recall, "last")) == [19]

    def test_what_a_rank_says_arrives_whole_in_order_and_before_its_result(self, cluster: Cluster) -> None:
        events: list[Event] = []
        lines = 500
        assert results(cluster.ranks(2).apply(speak, lines, on_event=events.append)) == ["spoken"] * 2
        for rank in range(2):
            mine = [event for event in events if event.rank == rank]
            text = "".join(event.data for event in mine if event.kind == "stdout")  # type: ignore[misc]
            assert text.splitlines() == [f"line {i} of {rank}" for i in range(lines)]
            (batch,) = [event.data for event in mine if event.kind == "metric"]
            assert [(m.step, m.name, m.value, m.rank) for m in batch] == [(1, "loss", 0.5 + rank, rank)]  # type: ignore[union-attr]
            (bundle,) = [event.data for event in mine if event.kind == "result"]
            assert "array([0, 1, 2])" in bundle["text/plain"]  # type: ignore[index,call-overload]

    def test_an_exception_reaches_the_caller_with_the_users_traceback(self, cluster: Cluster) -> None:
        ranks = cluster.ranks(2)
        good, bad = ranks.apply(fail_on, 1)
        assert good.result(WAIT) == 0
        error = bad.exception(WAIT)
        assert isinstance(error, UserCodeError)
        assert (error.name, error.where) == ("ZeroDivisionError", "rank 1")
        assert "return 1 // 0" in error.traceback
        assert isinstance(error.original, ZeroDivisionError)

    def test_an_interrupt_frees_the_ranks_and_keeps_their_variables(self, cluster: Cluster) -> None:
        ranks = cluster.ranks(2)
        results(ranks.apply(remember, "before", 42))
        pending = started(ranks, wait_long)
        ranks.interrupt()
        assert [type(p.exception(WAIT)) for p in pending] == [KeyboardInterrupt] * 2
        assert results(ranks.apply(recall, "before")) == [42, 42]

    def test_a_rank_that_has_begun_heeds_an_interrupt(self, cluster: Cluster) -> None:
        begun: set[int] = set()
        both = threading.Event()

        def on_begun(rank: int) -> None:
            begun.add(rank)
            if len(begun) == 2:
                both.set()

        pending = cluster.ranks(2).apply(wait_long, on_begun=on_begun)
        assert both.wait(WAIT)
        cluster.ranks(2).interrupt()
        assert [type(p.exception(WAIT)) for p in pending] == [KeyboardInterrupt] * 2

    def test_an_interrupt_of_idle_ranks_does_nothing(self, cluster: Cluster) -> None:
        ranks = cluster.ranks(2)
        ranks.interrupt()
        assert results(ranks.apply(remember, "z", 1)) == [0, 1]

    @pytest.mark.parametrize(("how", "cause"), [("exit", "code 7"), ("kill", "SIGKILL")])
    def test_a_rank_that_dies_is_reported_and_replaced(self, cluster: Cluster, how: str, cause: str) -> None:
        needs_processes(cluster)
        if "ipcontroller" in cluster.reference:
            pytest.skip("a foreign ipyparallel cluster does not replace its engines; see test_ipyparallel_cluster")
        ranks = cluster.ranks(2)
        results(ranks.apply(remember, "name", "old"))
        waiting, dying = started(ranks, wait_long)[0], ranks.apply(vanish, how, ranks=[1])[0]
        ranks.interrupt([1])
        error = dying.exception(WAIT)
        assert isinstance(error, RankLost)
        assert (error.role, error.rank) == ("worker", 1)
        assert cause in str(error)
        assert not waiting.done()
        ranks.interrupt([0])
        assert results(cluster.ranks(2).apply(recall, "name")) == ["old", None]

    def test_kill_ends_the_process(self, cluster: Cluster) -> None:
        needs_processes(cluster)
        if "ipcontroller" in cluster.reference:
            pytest.skip("a foreign ipyparallel cluster does not replace its engines; see test_ipyparallel_cluster")
        ranks = cluster.ranks(1)
        (pid,) = results(ranks.apply(process_id))
        (pending,) = started(ranks, wait_long)
        ranks.kill()
        assert isinstance(pending.exception(WAIT), RankLost)
        assert results(cluster.ranks(1).apply(process_id)) != [pid]

    def test_more_ranks_than_there_is_room_for_are_refused_with_the_numbers(self, cluster: Cluster) -> None:
        with pytest.raises(ClusterError, match=r"1000.*free|free.*1000"):
            cluster.ranks(1000)
        assert results(cluster.ranks(1).apply(remember, "still", 1)) == [0]


def double(x: int) -> int:
    return 2 * x


def total(numbers: list[int], more: int = 0) -> int:
    return sum(numbers) + more


def chatter(number: int) -> int:
    print("task", number)
    log(step=number, seen=number)
    return number


def refuse(_x: int) -> None:
    raise ValueError("not this one")


class TestTasks:
    def test_a_task_returns_its_value(self, cluster: Cluster) -> None:
        assert cluster.tasks().submit(double, 21).result(WAIT) == 42

    def test_results_of_tasks_are_arguments_of_tasks(self, cluster: Cluster) -> None:
        tasks = cluster.tasks()
        doubled = [tasks.submit(double, i) for i in range(5)]
        assert tasks.submit(total, doubled, doubled[4]).result(WAIT) == 28

    def test_a_task_prints_and_logs_to_its_submitter(self, cluster: Cluster) -> None:
        events: list[Event] = []
        heard = threading.Event()

        def hear(event: Event) -> None:
            events.append(event)
            if {e.kind for e in events} == {"stdout", "metric"}:
                heard.set()

        pending = cluster.tasks().submit(chatter, 3, label="map", number=3, on_event=hear)
        assert pending.result(WAIT) == 3
        assert heard.wait(WAIT)
        assert {(e.source, e.rank) for e in events} == {("map", 3)}
        assert "".join(e.data for e in events if e.kind == "stdout") == "task 3\n"  # type: ignore[misc]

    def test_an_exception_is_the_tasks_own(self, cluster: Cluster) -> None:
        pending = cluster.tasks().submit(refuse, 1)
        assert isinstance(pending.exception(WAIT), ValueError)
        with pytest.raises(ValueError, match="not this one"):
            pending.result(WAIT)

    def test_there_are_slots(self, cluster: Cluster) -> None:
        assert cluster.tasks().slots >= 1


class TestStatus:
    def test_status_counts_ranks_and_room(self, cluster: Cluster) -> None:
        cluster.restart()
        before = cluster.status()
        ranks = cluster.ranks(2)
        after = cluster.status()
        assert after.reference == cluster.reference
        assert before.free - after.free == 2
        assert [(r.role, r.rank, r.state) for r in after.ranks] == [("worker", 0, "idle"), ("worker", 1, "idle")]
        assert after.ranks == ranks.status()

    def test_restart_forgets_variables(self, cluster: Cluster) -> None:
        results(cluster.ranks(1).apply(remember, "old", 1))
        cluster.restart()
        assert results(cluster.ranks(1).apply(recall, "old")) == [None]


class TestSiblings:
    def test_a_sibling_has_ranks_of_its_own_beside_the_clusters(self, cluster: Cluster) -> None:
        cluster.restart()
        ranks = cluster.ranks(1)
        results(ranks.apply(remember, "whose", "mine"))
        sibling = cluster.sibling()
        if sibling is None:
            assert cluster.reference.endswith(".json")  # the engines of ipyparallel are all one client's
            return
        try:
            busy = started(ranks, wait_long)
            others = sibling.ranks(1)
            assert results(others.apply(recall, "whose")) == [None]  # while the cluster's own rank is busy
            assert not busy[0].done()
            ranks.interrupt()
            with pytest.raises(KeyboardInterrupt):
                busy[0].result(WAIT)
        finally:
            sibling.close()
        assert results(ranks.apply(recall, "whose")) == ["mine"]
        assert len(cluster.status().ranks) == 1

    def test_its_ranks_take_room(self, cluster: Cluster) -> None:
        needs_processes(cluster)
        cluster.restart()
        free = cluster.status().free
        sibling = cluster.sibling()
        if sibling is None:
            return
        try:
            sibling.ranks(1)
            assert cluster.status().free == free - 1
        finally:
            sibling.close()
        assert cluster.status().free == free
