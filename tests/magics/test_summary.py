"""The summary of a run that has ended."""

from __future__ import annotations

from typing import Any

import pytest

from paibook_magics.summary import summary_bundle, summary_line, summary_text

LINE = "map 8 tasks · 1.2M records, 45 MB · reduce 1 task · 3.2 s · 375k records/s · 14 MB/s"
BAD = {"records": 12, "file": "/runs/x/bad.jsonl"}
KEYS = [{"key": "'the'", "values": 410_221, "bytes": 4_100_000}, {"key": repr("long " * 40), "values": 1, "bytes": 9}]
OUTPUTS = {
    "": {"target": "main.parquet", "rows": 41_200, "bytes": 700_000},
    "bad": {"target": "strangers", "rows": 3, "bytes": 0},
}


def summary(**others: Any) -> dict[str, Any]:
    """What a run of two stages says of itself at its end."""
    stages = [
        {
            "name": "map",
            "tasks": 8,
            "records_in": 1_200_000,
            "records_out": 9_400_000,
            "bytes_in": 45_000_000,
            "bytes_out": 88_000_000,
            "seconds": 2.1,
            "retried": 1,
            "backups": 0,
            "spilled_bytes": 120_000_000,
        },
        {
            "name": "reduce",
            "tasks": 1,
            "records_in": 9_400_000,
            "records_out": 41_200,
            "bytes_in": 88_000_000,
            "bytes_out": 700_000,
            "seconds": 1.1,
            "retried": 0,
            "backups": 2,
            "spilled_bytes": 0,
        },
    ]
    rest = {"counters": {}, "largest_keys": [], "bad": None, "outputs": {}}
    return {"stages": stages, "seconds": 3.2, **rest, **others}


class TestLine:
    def test_has_stages_input_time_and_rates(self) -> None:
        assert summary_line(summary()) == LINE

    def test_without_bytes_says_records_only(self) -> None:
        told = summary()
        told["stages"][0]["bytes_in"] = 0
        assert summary_line(told) == "map 8 tasks · 1.2M records · reduce 1 task · 3.2 s · 375k records/s"

    @pytest.mark.parametrize("seconds", [0, 0.0])
    def test_no_time_has_no_rate(self, seconds: float) -> None:
        assert summary_line(summary(seconds=seconds)).endswith("reduce 1 task · 0.0 s")

    def test_no_input_and_no_stage(self) -> None:
        told = summary()
        told["stages"] = [{**told["stages"][0], "records_in": 0, "bytes_in": 0}]
        assert summary_line(told) == "map 8 tasks · 0 records · 3.2 s"
        assert summary_line(summary(stages=[])) == "3.2 s"


class TestText:
    def test_is_the_line_where_nothing_else_happened(self) -> None:
        assert summary_text(summary()) == LINE

    def test_has_counters_and_bad_records(self) -> None:
        assert summary_text(summary(counters={"words": 7000}, bad=BAD)).splitlines() == [
            LINE,
            "counters: words 7,000",
            "12 bad records skipped; see /runs/x/bad.jsonl",
        ]

    def test_no_bad_record_is_not_worth_a_line(self) -> None:
        assert summary_text(summary(bad={"records": 0, "file": "x"})) == LINE

    def test_tables_on_request(self) -> None:
        lines = summary_text(summary(largest_keys=KEYS, outputs=OUTPUTS), with_tables=True).splitlines()
        assert lines[2:6] == [
            "stages:",
            "stage   tasks  records in  records out  bytes in  bytes out   time",
            "map         8   1,200,000    9,400,000     45 MB      88 MB  2.1 s  1 retried, spilled 120 MB",
            "reduce      1   9,400,000       41,200     88 MB     700 kB  1.1 s  2 backups",
        ]
        assert lines[7:11] == [
            "outputs:",
            "output  records   bytes  where",
            "main     41,200  700 kB  main.parquet",
            "bad           3          strangers",
        ]
        assert [line.split() for line in lines[12:15]] == [
            ["largest", "keys:"],
            ["key", "values", "bytes"],
            ["'the'", "410,221", "4.1", "MB"],
        ]
        assert len(lines[15]) < 90


class TestHtml:
    def test_opens_from_the_line_into_the_tables(self) -> None:
        page = summary_bundle(summary(largest_keys=KEYS, outputs=OUTPUTS))["text/html"]
        assert f"<details><summary>{LINE}</summary>" in page
        inside = page[page.index("<details>") : page.index("</details>")]
        for text in ("1,200,000", "700 kB", "main.parquet", "&#x27;the&#x27;", "410,221", "1 retried, spilled 120 MB"):
            assert text in inside

    def test_counters_and_bad_records_are_seen_unopened(self) -> None:
        page = summary_bundle(summary(counters={"words": 7}, bad=BAD))["text/html"]
        below = page[page.index("</details>") :]
        assert "words 7" in below
        assert "12 bad records skipped; see /runs/x/bad.jsonl" in below

    def test_keys_cannot_break_out(self) -> None:
        keys = [{"key": "</td><script>", "values": 1, "bytes": 1}]
        page = summary_bundle(summary(largest_keys=keys, counters={"<b>": 1}))["text/html"]
        assert "<script>" not in page
        assert "<b>" not in page

    def test_text_is_the_line(self) -> None:
        assert summary_bundle(summary())["text/plain"] == LINE
