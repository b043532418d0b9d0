"""What a run that has ended leaves in the notebook."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from paibook.plan import Plan
from paibook.program import Program
from paibook_magics.results import keep


def ended(runtime: str, result: Any, options: dict[str, Any] | None = None, **fields: Any) -> Any:
    """A run that took two seconds."""
    plan = Plan(runtime, Program(""), options=options or {})
    record = SimpleNamespace(started=10.0, ended=12.0)
    return SimpleNamespace(plan=plan, record=record, result=lambda: result, **fields)


class TestMapReduce:
    def test_a_variable_gets_the_records(self, capsys: pytest.CaptureFixture[str]) -> None:
        namespace: dict[str, Any] = {}
        assert keep(ended("mapreduce", [1, 2], {"out": "kept", "out_kind": "variable"}), namespace) is None
        assert namespace == {"kept": [1, 2]}
        assert capsys.readouterr().out == "kept: 2 records, 2.0 s\n"

    @pytest.mark.parametrize(
        "options", [{}, {"out": None, "out_kind": "none"}, {"out": "a.parquet", "out_kind": "path"}]
    )
    def test_else_they_are_shown(self, options: dict[str, Any]) -> None:
        namespace: dict[str, Any] = {}
        assert keep(ended("mapreduce", [1, 2], options), namespace) == [1, 2]
        assert namespace == {}

    def test_of_many_the_first(self) -> None:
        shown = repr(keep(ended("mapreduce", list(range(5000))), {}))
        assert shown.startswith("[0,\n 1,\n")
        assert shown.endswith("… 5,000 records in all; -o NAME keeps them]")

    def test_named_outputs_are_kept_and_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        outputs = {
            "bad": {"kind": "path", "target": "bad.jsonl"},
            "odd": {"kind": "variable", "target": "strange"},
        }
        written = {"": {"rows": 1}, "bad": {"rows": 1234}, "odd": {"rows": 1}}
        run = ended(
            "mapreduce",
            {"": [1], "odd": ["x"], "bad": "a data set"},
            {"out": None, "out_kind": "none", "outputs": outputs},
            summary={"outputs": written},
        )
        namespace: dict[str, Any] = {}
        assert keep(run, namespace) == [1]
        assert namespace == {"strange": ["x"]}
        assert capsys.readouterr().out == (
            "bad.jsonl: 1,234 records of the output 'bad'\nstrange: 1 record of the output 'odd'\n"
        )


class TestRanks:
    def test_a_variable_gets_one_value_per_rank(self, capsys: pytest.CaptureFixture[str]) -> None:
        namespace: dict[str, Any] = {}
        assert keep(ended("allreduce", SimpleNamespace(values={1: "b", 0: "a"})), namespace, "kept") is None
        assert namespace == {"kept": ["a", "b"]}
        assert capsys.readouterr().out == "kept: one value per rank, 2.0 s\n"

    def test_without_one_the_ranks_have_shown_their_values(self) -> None:
        assert keep(ended("allreduce", SimpleNamespace(values={0: "a"})), {}) is None

    def test_what_is_pulled_becomes_variables(self, capsys: pytest.CaptureFixture[str]) -> None:
        namespace: dict[str, Any] = {}
        keep(ended("allreduce", SimpleNamespace(values={}, pulled={"n": True}, differs={"n"})), namespace)
        assert namespace == {"n": True}
        assert capsys.readouterr().out == (
            "pull n: bool, 28 B\nnote: n differs between ranks; this is the lowest rank's (n@RANK: another's)\n"
        )

    def test_trained_tables(self, capsys: pytest.CaptureFixture[str]) -> None:
        namespace: dict[str, Any] = {}
        keep(ended("ps", "tables"), namespace, "kept")
        assert namespace == {"kept": "tables"}
        assert capsys.readouterr().out == "kept: the trained tables, 2.0 s\n"
