"""What processes print, cut into lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook_magics.labelled_lines import LabelledLines


class TestLabelledLines:
    def test_a_line_stays_back_until_it_is_whole(self) -> None:
        lines = LabelledLines()
        assert lines.feed("stdout", "a", "one\ntw") == ["one"]
        assert lines.feed("stdout", "b", "other\n") == ["other"]
        assert lines.feed("stderr", "a", "error\n") == ["error"]
        assert lines.feed("stdout", "a", "o\n\n") == ["two", ""]
        assert lines.rest() == []

    def test_what_is_left_at_the_end(self) -> None:
        lines = LabelledLines()
        lines.feed("stdout", "a", "x")
        lines.feed("stderr", "b", "y\rz\r")
        assert lines.rest() == [("stdout", "a", "x"), ("stderr", "b", "z")]
        assert lines.rest() == []

    @pytest.mark.parametrize(
        "chunks",
        [
            ["\r10%", "\r20%", "\r30%\n"],
            ["10%\r", "20%\r", "30%\n"],
            ["10%\r20", "%\r3", "0%\n"],
            ["10%\r20%\r30%\r\n"],
            ["30%\r", "\n"],
        ],
    )
    def test_of_a_line_redrawn_the_last_state_counts(self, chunks: list[str]) -> None:
        lines = LabelledLines()
        assert [line for chunk in chunks for line in lines.feed("stdout", "a", chunk)] == ["30%"]
        assert lines.rest() == []

    @given(st.lists(st.text(st.sampled_from("ab\r\n"), max_size=5), max_size=6))
    def test_where_chunks_are_cut_makes_no_difference(self, chunks: list[str]) -> None:
        whole, cut = LabelledLines(), LabelledLines()
        expected = whole.feed("stdout", "a", "".join(chunks))
        assert [line for chunk in chunks for line in cut.feed("stdout", "a", chunk)] == expected
        assert cut.rest() == whole.rest()
