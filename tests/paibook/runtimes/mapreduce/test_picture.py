"""The picture of a run: from events to groups of tasks, and the shuffle as it fills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paibook.errors import RunError
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.runtimes.mapreduce.picture import COLUMNS, ROWS, JobPicture
from paibook.runtimes.mapreduce.planned_picture import planned_picture
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.shuffle import Segment
from tests.paibook.runtimes.mapreduce.conftest import WORD_COUNT
from tests.paibook.runtimes.mapreduce.test_scheduler import cluster


def buckets(*values: int) -> list[list[Segment]]:
    return [[Segment("file", 0, 10 * count, count, 100)] if count else [] for count in values]


def stage(made: JobPicture, name: str) -> dict[str, Any]:
    return next(found for found in made.draw()["stages"] if found["name"] == name)


class TestJobPicture:
    def test_what_has_not_begun_is_there_already(self) -> None:
        drawn = JobPicture(["map", "reduce"], {"map": {"map": 2}}, 4).draw()
        assert [(found["name"], found["tasks"]) for found in drawn["stages"]] == [("map", 0), ("reduce", 0)]
        assert drawn["lines"] == {}

    def test_a_task_waits_is_given_away_is_at_work_and_is_done(self) -> None:
        made = JobPicture(["map", "reduce"], {"map": {"map": 2}}, 2, [("a.txt", "bytes 0 to 9"), ("b.txt", "")])
        made.begin("map", 2)
        seen = []
        for step in (
            lambda: None,
            lambda: made.submit(1),
            lambda: made.take_up(1),
            lambda: made.report(1, {"records_in": 5}),
            lambda: made.end(1, Report(records_in=9), buckets(3, 0)),
        ):
            step()
            group = stage(made, "map")["groups"][1]
            seen.append({name: count for name, count in group.items() if name not in ("first", "last")})
        same = {"label": ["b.txt", ""], "buckets": None}
        assert seen == [
            {**same, "waiting": 1},
            {**same, "queued": 1},
            {**same, "running": 1},
            {**same, "running": 1, "records_in": 5},
            {**same, "done": 1, "records_in": 9},
        ]
        assert stage(made, "map")["groups"][0]["label"] == ["a.txt", "bytes 0 to 9"]
        assert made.draw()["lines"] == {"map": 2}

    def test_the_shuffle_fills_as_tasks_end(self) -> None:
        made = JobPicture(["map", "reduce"], {}, 3)
        made.begin("map", 2)
        empty = stage(made, "map")["shuffle"]
        assert empty == {
            "buckets": 3,
            "columns": [[0, 0], [1, 1], [2, 2]],
            "records": [[0] * 3] * 2,
            "bytes": [[0] * 3] * 2,
        }
        made.end(1, Report(), buckets(4, 0, 1))
        filled = stage(made, "map")["shuffle"]
        assert filled["records"] == [[0, 0, 0], [4, 0, 1]]
        assert filled["bytes"] == [[0, 0, 0], [40, 0, 10]]

    def test_what_stays_in_a_workers_memory_counts_as_it_lies_there(self) -> None:
        made = JobPicture(["map", "reduce"], {}, 1)
        made.begin("map", 1)
        made.end(0, Report(), [[Segment(b"", 0, 0, 7, 560)]])
        assert stage(made, "map")["shuffle"]["bytes"] == [[560]]

    def test_the_last_stage_shuffles_nothing(self) -> None:
        made = JobPicture(["map", "reduce"], {}, 2)
        made.begin("map", 1)
        made.end(0, Report(), buckets(1, 2))
        made.take_buckets([range(1), range(1, 2)])
        made.begin("reduce", 2)
        made.end(0, Report(records_out=3), {"": None})
        reduce = stage(made, "reduce")
        assert reduce["shuffle"] is None
        assert [group["buckets"] for group in reduce["groups"]] == [[0, 0], [1, 1]]

    def test_deaths_and_backups(self) -> None:
        made = JobPicture(["map"])
        made.begin("map", 1)
        made.submit(0)
        made.take_up(0)
        made.submit(0, is_backup=True)
        made.lose(0, is_at_work_elsewhere=True)
        assert (
            stage(made, "map")["groups"][0] | {"running": 1, "backups": 1, "retried": 1}
            == stage(made, "map")["groups"][0]
        )
        made.lose(0, is_at_work_elsewhere=False)
        group = stage(made, "map")["groups"][0]
        assert (group["waiting"], group["retried"]) == (1, 2)
        assert "running" not in group

    def test_a_task_that_ended_is_not_taken_up_again_by_a_late_word(self) -> None:
        made = JobPicture(["map"])
        made.begin("map", 1)
        made.end(0, Report(records_in=2), {"": None})
        made.take_up(0)
        made.report(0, {"records_in": 1})
        assert stage(made, "map")["groups"][0]["done"] == 1
        assert stage(made, "map")["groups"][0]["records_in"] == 2

    @pytest.mark.parametrize(("tasks", "partitions"), [(1, 1), (17, 5), (1000, 64), (10_000, 1000)])
    def test_a_picture_is_bounded_and_leaves_nobody_out(self, tasks: int, partitions: int) -> None:
        made = JobPicture(["map", "reduce"], {}, partitions, [(f"file-{i}", "") for i in range(tasks)])
        made.begin("map", tasks)
        step = max(1, tasks // 50)
        for number in range(0, tasks, step):
            made.end(number, Report(records_in=1), buckets(*[1] * partitions))
        drawn = stage(made, "map")
        groups, shuffle = drawn["groups"], drawn["shuffle"]
        ended = len(range(0, tasks, step))
        assert len(groups) == min(ROWS, tasks)
        assert len(shuffle["columns"]) == min(COLUMNS, partitions)
        assert [group["first"] for group in groups[1:]] == [group["last"] + 1 for group in groups[:-1]]
        assert groups[-1]["last"] == tasks - 1
        assert sum(group.get("done", 0) for group in groups) == ended
        assert sum(map(sum, shuffle["records"])) == ended * partitions
        assert len(json.dumps(made.draw())) < 12_000


class TestOfARun:
    """What real runs show."""

    def test_word_count_from_the_first_split_to_the_last_reducer(self, run: Any) -> None:
        lines = ["a b", "b c", "c d"] * 20
        run.over(WORD_COUNT, lines, reducers=3)
        pictures = [progress.picture for progress in run.progress if progress.picture is not None]
        first, last = pictures[0], pictures[-1]
        assert first["stage"] == "map"
        assert first["lines"] == {"map": 2}
        assert sum(group["waiting"] for group in first["stages"][0]["groups"]) == first["stages"][0]["tasks"]
        mapped, reduced = last["stages"]
        assert all(group["label"][0] == "items" for group in mapped["groups"])
        assert sum(map(sum, mapped["shuffle"]["records"])) == sum(g["records_out"] for g in mapped["groups"])
        assert sum(group["records_in"] for group in mapped["groups"]) == len(lines)
        assert (reduced["tasks"], sum(group["done"] for group in reduced["groups"])) == (3, 3)
        assert last["lines"] == {"reduce": 6}
        assert [group["buckets"] for group in reduced["groups"]] == [[0, 0], [1, 1], [2, 2]]

    def test_a_task_that_was_lost_is_seen_done_again(self, run: Any) -> None:
        run.cluster = cluster("map", "result", [RunError("the worker is gone")])
        run.over(WORD_COUNT, ["a b", "b"])
        last = [progress.picture for progress in run.progress if progress.picture is not None][-1]
        assert sum(group.get("retried", 0) for group in last["stages"][0]["groups"]) == 1
        assert sum(group["done"] for group in last["stages"][0]["groups"]) == last["stages"][0]["tasks"]


def plan(source: str, **options: Any) -> Plan:
    return Plan("mapreduce", Program(source), Resources(2), options=options)


class TestPlanned:
    def test_files_are_cut_as_the_run_would_cut_them(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("line\n" * 40_000)
        drawn, note = planned_picture(plan(WORD_COUNT, inputs=[str(tmp_path / "a.txt")], reducers=3), slots=2)
        mapped, reduced = drawn["stages"]
        assert mapped["tasks"] > 1
        assert mapped["groups"][0]["label"][0] == "a.txt"
        assert mapped["groups"][0]["label"][1].startswith("bytes 0 to ")
        assert mapped["shuffle"]["buckets"] == 3
        assert [group["buckets"] for group in reduced["groups"]] == [[0, 0], [1, 1], [2, 2]]
        assert drawn["lines"] == {}
        assert note == ""

    def test_what_is_not_known_is_said(self) -> None:
        drawn, note = planned_picture(plan(WORD_COUNT, inputs=[{"variable": "items"}, "missing.txt"]), slots=3)
        assert [group["label"] for group in drawn["stages"][0]["groups"]] == [["items", ""]] * 3 + [
            ["missing.txt", ""]
        ] * 3
        assert drawn["stages"][1]["tasks"] == 0
        assert note.split("; ") == [
            "how many splits there are is seen when it runs",
            "reduce tasks take partitions so that they are of equal size",
        ]

    def test_without_a_reducer_nothing_is_shuffled(self) -> None:
        drawn, _ = planned_picture(plan("def map(r): pass\nreduce = None", inputs=["x.txt"]), slots=2)
        assert [found["name"] for found in drawn["stages"]] == ["map"]
        assert drawn["stages"][0]["shuffle"] is None
