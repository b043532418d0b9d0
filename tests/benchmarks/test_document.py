"""Each suite owns what lies between its markers, and nothing else."""

from benchmarks import document
from benchmarks.comparison import Target, compare


def test_inserting_twice_replaces_and_keeps_the_rest():
    once = document.insert("# Benchmarks\n\nwords\n", "cells", "| first |")
    twice = document.insert(once, "cells", "| second |")
    assert "## Cells" in once
    assert "| first |" in once
    assert "| first |" not in twice
    assert "| second |" in twice
    assert twice.startswith("# Benchmarks\n\nwords\n")
    assert document.insert(twice, "ps", "| other |").count("| second |") == 1


def test_update_writes_a_new_document(tmp_path):
    path = tmp_path / "docs" / "benchmarks.md"
    document.update("cells", "body", path)
    assert path.read_text().startswith("# Benchmarks\n")
    assert "body" in path.read_text()


def test_comparison_table_has_a_row_per_comparison():
    row = compare(
        *("Stop | idle", "peer", [0.05], [0.1]),
        unit="s",
        target=Target(0.1),
        versions={},
        machine="",
        date="2026-11-23",
    )
    lines = document.comparison_table([row]).splitlines()
    assert len(lines) == 3
    assert lines[2] == r"| Stop \| idle | peer | 0.05 s | 0.1 s | 0.5 (0.5-0.5) | <= 0.1 s | ok |"


def test_side_table_shows_medians_spreads_and_notes():
    sides = {
        "paibook": {"stop": ([0.1, 0.3, 0.2], "state kept")},
        "peer": {"stop": ([None], "not stopped in 40 s")},
        "slow": {"stop": ([128.0, 131.4], "")},
        "other": {},
    }
    lines = document.side_table({"stop": "s"}, sides).splitlines()
    assert lines[0] == "|  | paibook | peer | slow | other |"
    assert lines[2] == "| stop | 0.2 s (0.1-0.3), state kept | not stopped in 40 s | 130 s (128-131) | - |"
