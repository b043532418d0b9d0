"""Pictures kept with their times: how many, which, and what a crash or a full disk leaves."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from paibook import pictures
from paibook.pictures import Pace, PictureLog


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def picture(number: int) -> dict[str, Any]:
    return {"model": "ps", "clock": number}


def clocks(log: PictureLog) -> list[int]:
    return [frame.picture["clock"] for frame in log.read(number for number, _ in log.times)]


class TestPace:
    def test_a_burst_and_then_one_in_so_many_seconds(self) -> None:
        pace = Pace(every=1.0, burst=3)
        assert [pace.allows(0.0) for _ in range(5)] == [True, True, True, False, False]
        assert [pace.allows(now) for now in (0.5, 1.1, 1.2, 2.2)] == [False, True, False, True]

    def test_a_quiet_time_gives_no_more_than_a_burst(self) -> None:
        pace = Pace(every=1.0, burst=2)
        assert pace.allows(0.0)
        assert [pace.allows(1000.0) for _ in range(3)] == [True, True, False]

    def test_a_clock_that_is_set_back_is_borne(self) -> None:
        pace = Pace(every=1.0, burst=1)
        assert [pace.allows(now) for now in (100.0, 50.0, 50.5, 51.5)] == [True, False, False, True]


class TestPictureLog:
    def test_what_was_kept_is_read_with_its_times(self, tmp_path: Path, clock: Clock) -> None:
        log = PictureLog(tmp_path / "p.jsonl", clock)
        for number in range(3):
            log.add(picture(number))
            clock.now += 1
        assert log.times == [(0, 1000.0), (1, 1001.0), (2, 1002.0)]
        assert [tuple(frame) for frame in log.read([2, 0, 7])] == [(0, 1000.0, picture(0)), (2, 1002.0, picture(2))]
        again = PictureLog(tmp_path / "p.jsonl")
        assert again.times == log.times
        assert again.last == log.last

    def test_a_picture_like_the_last_is_not_kept_again(self, tmp_path: Path, clock: Clock) -> None:
        log = PictureLog(tmp_path / "p.jsonl", clock)
        for number in (1, 1, 1, 2, 1):
            log.add(picture(number))
            clock.now += 1
        assert clocks(log) == [1, 2, 1]

    def test_of_those_that_come_too_soon_the_latest_waits(self, tmp_path: Path, clock: Clock) -> None:
        log = PictureLog(tmp_path / "p.jsonl", clock)
        for number in range(10 * pictures.BURST):
            log.add(picture(number))
        assert clocks(log) == list(range(pictures.BURST))
        clock.now += pictures.EVERY_SECONDS
        assert log.last is not None
        assert log.last.picture == picture(10 * pictures.BURST - 1)

    def test_the_last_picture_is_kept_at_the_end(self, tmp_path: Path, clock: Clock) -> None:
        log = PictureLog(tmp_path / "p.jsonl", clock)
        for number in range(pictures.BURST + 5):
            log.add(picture(number))
        log.close()
        log.close()
        assert clocks(log)[-2:] == [pictures.BURST - 1, pictures.BURST + 4]

    def test_a_long_run_is_thinned_and_keeps_all_of_its_time(
        self, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pictures, "MOST", 100)
        path = tmp_path / "p.jsonl"
        log = PictureLog(path, clock)
        for number in range(5000):
            log.add(picture(number))
            clock.now += 0.25
        log.close()
        kept = clocks(log)
        assert 50 <= len(kept) <= 100
        assert len(path.read_text().splitlines()) == len(kept)
        assert kept[0] == 0
        assert kept[-1] == 4999
        assert max(later - sooner for sooner, later in pairwise(kept)) < 5000 / 20
        assert clocks(PictureLog(path)) == kept
        assert list(tmp_path.iterdir()) == [path]

    def test_a_run_of_large_pictures_is_thinned_too(
        self, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pictures, "MOST_BYTES", 50_000)
        log = PictureLog(tmp_path / "p.jsonl", clock)
        for number in range(200):
            log.add({**picture(number), "text": "x" * 1000})
            clock.now += 1
        assert (tmp_path / "p.jsonl").stat().st_size <= 50_000
        assert clocks(log)[0] == 0

    def test_half_a_line_left_by_a_crash_is_not_read_and_is_written_over(self, tmp_path: Path, clock: Clock) -> None:
        path = tmp_path / "p.jsonl"
        log = PictureLog(path, clock)
        log.add(picture(1))
        with path.open("a") as file:
            file.write('{"number": 1, "time": 1001.0, "pict')
        again = PictureLog(path, clock)
        assert clocks(again) == [1]
        again.add(picture(2))
        assert clocks(again) == [1, 2]
        assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1]

    def test_a_line_that_was_spoilt_is_left_out(self, tmp_path: Path, clock: Clock) -> None:
        path = tmp_path / "p.jsonl"
        path.write_text('{"number": 0, "time": 5.0, "picture": {"clock": }\nnonsense\n')
        log = PictureLog(path, clock)
        log.add(picture(7))
        assert clocks(log) == [7]

    def test_a_reader_sees_what_another_process_has_written(self, tmp_path: Path, clock: Clock) -> None:
        writer = PictureLog(tmp_path / "p.jsonl", clock)
        reader = PictureLog(tmp_path / "p.jsonl", clock)
        assert reader.last is None
        writer.add(picture(3))
        reader.refresh()
        assert clocks(reader) == [3]

    def test_a_folder_that_is_gone_ends_the_recording_and_nothing_else(self, tmp_path: Path, clock: Clock) -> None:
        log = PictureLog(tmp_path / "gone" / "p.jsonl", clock)
        log.add(picture(1))
        log.add(picture(2))
        log.close()
        assert "no longer saved" in log.unsaved
        assert log.times == []
        assert log.last is None
