"""From reports to rates and times left."""

from __future__ import annotations

import pytest

from paibook.runtimes.contract import Progress
from paibook_magics.stage_meters import Reading, StageMeters


def read(*reports: tuple[float, Progress]) -> list[Reading]:
    meters = StageMeters()
    for now, report in reports:
        meters.update(report, now)
    return meters.read()


class TestTime:
    def test_a_stage_takes_its_time_from_its_first_work_on(self) -> None:
        (reading,) = read(
            (0, Progress("map", 0, 4)),
            (5, Progress("map", 0, 4, details={"running": 2})),
            (8, Progress("map", 1, 4, details={"running": 2})),
        )
        assert reading.seconds == 3

    def test_without_running_tasks_it_began_with_the_report_before_its_first_end(self) -> None:
        (reading,) = read((2, Progress("map", 0, 4)), (8, Progress("map", 1, 4)))
        assert reading.seconds == 6

    def test_nor_where_its_first_report_of_running_tasks_has_records_already(self) -> None:
        first = Progress("map", 0, 4, details={"running": 2, "records": 90})
        (reading,) = read((2, Progress("map", 0, 4)), (5, first))
        assert (reading.seconds, reading.rate("records")) == (3, 30)

    def test_a_stage_that_was_announced_waits_for_the_one_before_it(self) -> None:
        reports = [
            (0.0, Progress("map", 0, 2)),
            (0.0, Progress("reduce", 0, 2)),
            (50.0, Progress("map", 1, 2)),
            (60.0, Progress("map", 2, 2)),
            (63.0, Progress("reduce", 1, 2)),
        ]
        assert [reading.seconds for reading in read(*reports)] == [60, 3]

    @pytest.mark.parametrize(
        ("done", "seconds", "left"),
        [(10, 60, None), (11, 60, None), (12, 60, 440), (50, 2, None), (50, 2.5, 2.5), (99, 99, 1), (100, 60, None)],
    )
    def test_its_end_is_foretold_when_enough_is_known(self, done: int, seconds: float, left: float | None) -> None:
        total = 100 if done != 11 else 110
        (reading,) = read((0, Progress("map", 0, total)), (seconds, Progress("map", done, total)))
        assert reading.left == left

    def test_of_an_unknown_number_no_end_is_foretold(self) -> None:
        (reading,) = read((0, Progress("train", 0, None)), (60, Progress("train", 50, None)))
        assert reading.left is None


class TestState:
    @pytest.mark.parametrize(
        ("report", "state"),
        [
            (Progress("map", 0, 4), "waiting"),
            (Progress("map", 0, 4, details={"running": 1}), "running"),
            (Progress("map", 0, 4, details={"records": 9}), "running"),
            (Progress("map", 3, 4), "running"),
            (Progress("map", 4, 4), "done"),
            (Progress("map", 0, 0), "done"),
            (Progress("train", 0, None), "waiting"),
            (Progress("train", 7, None), "running"),
        ],
    )
    def test_follows_from_the_numbers(self, report: Progress, state: str) -> None:
        assert read((0, report))[0].state == state

    def test_what_has_stopped_neither_runs_nor_ends(self) -> None:
        (reading,) = read(
            (0, Progress("map", 0, 4)), (9, Progress("map", 2, 4, details={"running": 2, "records": 900}))
        )
        stopped = reading.stopped()
        assert (reading.left, reading.detail("running")) == (9, 2)
        assert (stopped.left, stopped.detail("running"), stopped.detail("records")) == (None, 0, 900)


class TestNumbers:
    def test_rates_are_of_the_stages_own_time(self) -> None:
        (reading,) = read((0, Progress("map", 0, 4)), (10, Progress("map", 2, 4, details={"records": 500})))
        assert reading.rate("records") == 50
        assert reading.rate("bytes") is None
        assert reading.rate("tasks") == 0.2

    def test_too_short_a_time_has_no_rate(self) -> None:
        assert read((0, Progress("map", 2, 4, details={"records": 500})))[0].rate("records") is None

    def test_counters_are_those_of_the_run(self) -> None:
        meters = StageMeters()
        meters.update(Progress("map", 1, 2, counters={"bad": 1, "words": 7}), 0)
        before = meters.counters
        meters.update(Progress("reduce", 0, 2, counters={"bad": 3}), 1)
        assert meters.counters == {"bad": 3, "words": 7}
        assert before == {"bad": 1, "words": 7}  # whoever is drawing it goes on undisturbed
