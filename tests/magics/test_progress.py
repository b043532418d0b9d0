"""The progress bars of a run's stages."""

from __future__ import annotations

import pytest

from paibook.runtimes.contract import Progress
from paibook_magics.progress import ProgressDisplay, progress_bundle


class TestProgress:
    def test_the_summary_names_every_stage(self) -> None:
        progress = ProgressDisplay(0.0)
        progress.update(Progress("map", 4, 8))
        progress.update(Progress("map", 8, 8))
        progress.update(Progress("reduce", 1234, None, "records"))
        assert progress.summary().startswith("map 8 tasks · reduce 1,234 records · ")
        assert progress.summary().endswith(" s")

    def test_nothing_is_drawn_before_its_time(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = ProgressDisplay(3600)
        progress.update(Progress("map", 1, 2))
        progress.tick()
        progress.finish()
        assert capsys.readouterr().out == ""

    def test_a_start_that_took_time_is_said_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = ProgressDisplay(3600)
        progress.update(Progress("start", 0, None, "embedded"))
        progress.tick()
        progress.update(Progress("start", 2.5, None, "embedded"))
        progress.tick()
        progress.tick()
        progress.finish()
        assert capsys.readouterr().out == "started the embedded cluster in 2.5 s\n"

    def test_a_start_that_took_none_is_not(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = ProgressDisplay(3600)
        progress.update(Progress("start", 0.001, None, "inline"))
        progress.finish()
        assert capsys.readouterr().out == ""

    def test_a_bar_as_text_and_html(self) -> None:
        bundle = progress_bundle([(Progress("map", 3, 12), 1.5), (Progress("<b>", 5, None, "MB"), 2.0)])
        first, second = bundle["text/plain"].splitlines()
        assert first.startswith("map:  25%")
        assert "3/12" in first
        assert "5 MB" in second
        assert '<progress style="width:16em" max="12" value="3">' in bundle["text/html"]
        assert "3 / 12 tasks" in bundle["text/html"]
        assert "&lt;b&gt;" in bundle["text/html"]
        assert "<b>" not in bundle["text/html"]

    @pytest.mark.parametrize(("done", "total"), [(0, 0), (0, 5), (2.5, 5), (7, 5)])
    def test_odd_numbers_draw_too(self, done: float, total: float) -> None:
        assert "map" in progress_bundle([(Progress("map", done, total), 0.0)])["text/plain"]
