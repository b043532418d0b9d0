"""The session: which cluster, what is refused before anything runs, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paibook.clusters.contract import Cluster
from paibook.clusters.inline import InlineCluster
from paibook.errors import ClusterError, PaibookError, PlanError, ProgramError, RunCancelled, RunError
from paibook.history import RunHistory
from paibook.plan import RUNTIMES, Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session, driver_of, pickled_size
from paibook.settings import settings

WAIT = 30


@pytest.fixture
def session(runs_folder: Path) -> Iterator[Session]:
    opened = Session("inline")
    yield opened
    opened.close()


def plan(source: str = "rank", **fields: Any) -> Plan:
    return Plan("allreduce", Program(source), Resources(2), **{"cluster": "inline", **fields})


class TestClusters:
    def test_the_settings_name_the_default(self, runs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PAIBOOK_CLUSTER", "inline")
        session = Session()
        assert session.cluster.reference == "inline"
        assert session.history.root == runs_folder
        session.close()

    def test_takes_a_cluster_and_a_history(self, tmp_path: Path) -> None:
        cluster, history = InlineCluster(), RunHistory(tmp_path)
        session = Session(cluster, history)
        assert session.cluster is cluster
        assert session.history is history

    def test_one_cluster_for_one_reference(self, session: Session) -> None:
        session.run(plan("kept = 1")).result(WAIT)
        assert session.attach("inline") is session.cluster
        assert dict(session.run(plan("kept")).result(WAIT).values) == {0: 1, 1: 1}

    def test_attaching_an_equal_cluster_keeps_the_one_in_use(self, session: Session) -> None:
        before = session.cluster
        assert session.attach(InlineCluster()) is before
        assert session.cluster is before

    @pytest.mark.parametrize("reference", ["nowhere", "/no/such/file.json", "tcp://127.0.0.1:9", 5])
    def test_a_cluster_that_cannot_be_reached_leaves_the_one_in_use(
        self, session: Session, reference: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = session.cluster
        monkeypatch.setenv("PAIBOOK_START_TIMEOUT", "0.3")
        settings.cache_clear()
        with pytest.raises(ClusterError):
            session.attach(reference)
        assert session.cluster is before
        assert dict(session.run(plan()).result(WAIT).values) == {0: 0, 1: 1}

    def test_a_plan_may_name_another(self, session: Session) -> None:
        with pytest.raises(ClusterError, match="no cluster is called 'nowhere'"):
            session.run(plan(cluster="nowhere"))
        assert session.runs == []


class TestRefusals:
    """Nothing is launched, and nothing is written."""

    @pytest.fixture(autouse=True)
    def nothing_happened(self, session: Session) -> Iterator[None]:
        yield
        assert session.runs == []
        assert list(session.history) == []

    def test_a_variable_that_is_not_there_is_named(self, session: Session) -> None:
        with pytest.raises(PlanError, match="--push x: the notebook has no variable 'x'"):
            session.run(plan(push=("x",)))

    def test_a_variable_that_cannot_be_pickled_is_named(self, session: Session) -> None:
        with pytest.raises(PlanError, match=r"--push lock: a lock cannot be sent to the ranks \(.*pickle.*\)"):
            session.run(plan(push=("lock",)), {"lock": threading.Lock()})

    def test_a_missing_function_is_named(self, session: Session) -> None:
        with pytest.raises(ProgramError, match="needs a function named 'train'"):
            session.run(Plan("ps", Program("x = 1"), Resources(1, 1), "inline"))

    def test_a_syntax_error_is_pythons(self, session: Session) -> None:
        with pytest.raises(SyntaxError):
            session.run(plan("x = = 1"))

    def test_more_than_the_model_can_mean(self, session: Session) -> None:
        with pytest.raises(PlanError, match="--targets must be ranks from 0 to 1; got 5"):
            session.run(plan(targets=(5,)))


class TestFailures:
    def test_more_ranks_than_there_is_room_for(self, session: Session) -> None:
        run = session.run(Plan("allreduce", Program("1"), Resources(1000), "inline"))
        with pytest.raises(ClusterError, match="64 free; asked for 1000"):
            run.result(WAIT)
        assert run.state == "failed"

    def test_an_input_variable_that_is_not_there_is_named(self, session: Session) -> None:
        source = "def map(r): yield r, 1\ndef reduce(k, v): yield k"
        options = {"inputs": [{"variable": "docs"}]}
        run = session.run(Plan("mapreduce", Program(source), cluster="inline", options=options))
        with pytest.raises(PlanError, match="'docs'"):
            run.result(WAIT)


class TestClose:
    def test_stops_what_runs(self, session: Session) -> None:
        inside = threading.Event()
        run = session.run(plan("print('in', flush=True)\nwhile True: pass"), on_event=lambda event: inside.set())
        assert inside.wait(WAIT)
        session.close()
        assert isinstance(run.exception(WAIT), RunCancelled | RunError)
        assert [record.state for record in session.history] == [run.state]
        assert run.state in ("cancelled", "failed")

    def test_may_be_called_twice_and_the_next_run_starts_again(self, session: Session) -> None:
        session.close()
        session.close()
        assert dict(session.run(plan()).result(WAIT).values) == {0: 0, 1: 1}

    def test_ends_every_cluster(self, runs_folder: Path) -> None:
        closed: list[str] = []

        class Closing(InlineCluster):
            def __init__(self, reference: str) -> None:
                super().__init__()
                self.reference = reference

            def close(self) -> None:
                closed.append(self.reference)
                super().close()

        session = Session(Closing("first"))
        second: Cluster = session.attach(Closing("second"))
        assert session.cluster is second
        session.close()
        assert closed == ["first", "second"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_model_has_a_driver(runtime: str) -> None:
    driver = driver_of(runtime)
    assert callable(driver.check)
    assert callable(driver.run)


class TestPickledSize:
    def test_counts_arrays_without_copying_them(self) -> None:
        size = pickled_size("x", {"x": np.zeros(1_000_000)})
        assert 8_000_000 <= size < 8_001_000

    def test_counts_what_is_no_array(self) -> None:
        assert 1000 <= pickled_size("x", {"x": "a" * 1000}) < 1100

    def test_whatever_pickling_raises_is_said(self) -> None:
        class Bad:
            def __reduce__(self) -> Any:
                raise OSError("disk on fire")

        with pytest.raises(PaibookError, match=r"--push x: a Bad cannot .* \(disk on fire\); make it there instead"):
            pickled_size("x", {"x": Bad()})
