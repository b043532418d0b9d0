"""The parameter-server suite: a side is started, timed and checked; what fails says why."""

from __future__ import annotations

import gzip
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ps
from benchmarks.ps import SIDES, Part, Starter
from benchmarks.ps_jobs import crossed, messages, paibook_side, socket_side, work

DENSE = work.Job("dense", 20, 5, 0, 2, 1)
SPARSE = work.Job("sparse", 100, 4, 10, 2, 1)
ROUND_TRIP = work.Job("round trip", 100, 1, 5, 3, 1, pulls_only=True)
SMALL = (DENSE, SPARSE, ROUND_TRIP)


def test_a_side_that_does_the_work_has_a_value_of_every_job() -> None:
    found = work.found(work.Model, SMALL)
    assert set(found) == {"dense", "sparse", "round trip"}
    assert all(found.values())


@pytest.mark.parametrize("job", [DENSE, SPARSE])
def test_wrong_weights_are_no_value(job: work.Job) -> None:
    class Backward(work.Model):
        def push(self, keys: work.Keys | None, gradient: work.Array) -> None:
            super().push(keys, gradient * -1)

    assert work.found(Backward, [job]) == {job.name: None}


def test_several_workers_have_no_key_in_common() -> None:
    first, second = (np.concatenate(SPARSE.batches(worker, 2)) for worker in range(2))  # type: ignore[arg-type]
    assert not set(first.tolist()) & set(second.tolist())
    assert max(first.max(), second.max()) < SPARSE.rows


def test_a_server_over_messages_holds_the_same_weights() -> None:
    left, right = socket.socketpair()
    with left, right:
        moves = [socket_side.moves(left), socket_side.moves(right)]
        server = threading.Thread(target=messages.serve, args=(*moves[0], SMALL))
        server.start()
        assert all(messages.measure(*moves[1], SMALL).values())
        server.join(10)
        assert not server.is_alive()


def test_crossed_rows_and_their_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossed, "DATA", tmp_path)
    monkeypatch.setattr(crossed, "CACHE", tmp_path / "cache")
    with gzip.open(tmp_path / "few.gz", "wt") as file:
        file.write("-1 3:1 5:1\n+1 2:1 3:1 5:1\n+1 7:1\n")
    rows = crossed.rows("few.gz")
    assert rows.labels.tolist() == [0, 1, 1]
    assert rows.keys[:3].tolist() == [3, 5, 3 * crossed.BASE + 5]
    assert np.diff(rows.starts).tolist() == [3, 7, 1]
    assert [len(part.labels) for part in rows.parts(2)] == [2, 1]
    assert sum(len(rows.share(rank, 2).keys) for rank in range(2)) == len(rows.keys)
    batch = crossed.Batch.of(rows)
    weights = np.zeros(len(batch.keys), np.float32)
    assert batch.loss(weights) == pytest.approx(np.log(2))
    gradient = dict(zip(batch.keys.tolist(), batch.gradient(weights).tolist(), strict=True))
    assert (gradient[3], gradient[2], gradient[7]) == (0.0, -0.5, -0.5)
    assert crossed.text("few.gz").read_text().splitlines()[0] == f"-1 |f 3 5 {3 * crossed.BASE + 5}"


def test_every_target_names_a_side_and_every_part_a_measure() -> None:
    measures = {measure.name for measure in ps.MEASURES}
    assert {name for side in SIDES for part in side.parts for name in part.measures.values()} == measures
    assert {peer for measure in ps.MEASURES for peer in measure.targets} <= {side.name for side in SIDES}
    programs = {part.arguments[0] for side in SIDES if side.job == "paibook_side" for part in side.parts}
    assert programs == set(paibook_side.RUNS)


def test_commands_name_the_job_the_file_and_the_program() -> None:
    side = Starter("peer", "p", Path("/v/bin/python"), "job", (), ("mpiexec", "-n", "2"))
    expected = ["/v/bin/mpiexec", "-n", "2", "/v/bin/python", "-m", "benchmarks.ps_jobs.job", "f", "transfers"]
    assert side.command(Part({}, ("transfers",)), Path("f")) == expected


def test_a_side_that_cannot_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="no_such_side"):
        ps.turn(Starter("peer", "p", Path(sys.executable), "no_such_side", (Part({}),)))


def test_a_part_without_its_data_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crossed, "DATA", tmp_path)
    side = Starter("peer", "p", Path(sys.executable), "no_such_side", (Part({"x": "learning"}, needs_data=True),))
    assert ps.turn(side) == {}
    assert "learning needs a9a.gz" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("shared_memory", ["1", "0"])
def test_paibook_gives_right_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_memory: str) -> None:
    part = Part({job.name: job.name for job in work.JOBS}, ("transfers",), {"PAIBOOK_SHARED_MEMORY": shared_memory})
    outcomes = ps.turn(Starter("paibook", "paibook", Path(sys.executable), "paibook_side", (part,)))
    assert set(outcomes) == {job.name for job in work.JOBS}
    assert all(outcome.value for outcome in outcomes.values())
