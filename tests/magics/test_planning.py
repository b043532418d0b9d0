"""From a cell to a plan."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from paibook.errors import PlanError
from paibook.plan import Plan
from paibook.resources import Resources
from paibook_magics.planning import input_variables, is_path, plan_cell

WORD_COUNT = "def map(line): yield line, 1\ndef reduce(word, ones): yield word\n"
TRAIN = "def train(ps): pass\n"


def planned(magic: str, line: str, body: str = "1", **namespace: Any) -> Plan:
    return plan_cell(magic, line, body, namespace, "embedded", "Cell In[3]")[0]


def refused(magic: str, line: str, **namespace: Any) -> str:
    with pytest.raises(PlanError) as caught:
        planned(magic, line, **namespace)
    return str(caught.value)


class TestShared:
    def test_everything_of_the_line_is_in_the_plan(self) -> None:
        line = "-n 4 -g 1 -t 0-1 --push a,b --pull c@1 --timeout 9 --name mine --hp lr=0.1 opt=adam"
        plan = planned("pai_allreduce", line)
        assert plan.resources == Resources(4, 0, 1)
        assert (plan.targets, plan.push, plan.pull) == ((0, 1), ("a", "b"), ("c@1",))
        assert (plan.timeout, plan.name, plan.cluster) == (9, "mine", "embedded")
        assert plan.hyperparameters == {"lr": 0.1, "opt": "adam"}
        assert plan.program.filename == "Cell In[3]"

    def test_a_plan_survives_json(self) -> None:
        plan = planned("pai_ps", '-n 2 --servers 2 --until "loss < 1" --hp lr=1', TRAIN)
        assert Plan.from_json(plan.to_json()) == plan

    def test_the_line_may_name_a_cluster(self) -> None:
        assert planned("pai_allreduce", "--cluster tcp://host:8786").cluster == "tcp://host:8786"

    def test_pais_json_gives_resources_and_keeps_the_cluster(self) -> None:
        line = """-n 9 --cluster ' {"ps":{"count":3},"worker":{"count":2,"gpu":100}}'"""
        plan = planned("pai_ps", line, TRAIN)
        assert (plan.resources, plan.cluster) == (Resources(2, 3, 1), "embedded")

    def test_ranks_are_known_from_pais_json_too(self) -> None:
        assert planned("pai_allreduce", """-t ::2 --cluster '{"worker":{"count":4}}'""").targets == (0, 2)

    def test_options_that_concern_the_notebook_only_are_beside_the_plan(self) -> None:
        plan, options = plan_cell("pai_allreduce", "-a --local --dry-run", "1", {}, "inline")
        assert (options.noblock, options.local, options.dry_run) == (True, True, True)
        assert not {"noblock", "local", "dry_run"} & set(plan.to_dict())

    @pytest.mark.parametrize("word", ["lr", "=1"])
    def test_a_bad_hyperparameter_is_named(self, word: str) -> None:
        assert repr(word) in refused("pai_allreduce", f"--hp {word}")


class TestLineNumbers:
    @given(
        st.lists(st.sampled_from(["", "   ", "\t", "x = 1", "# note", "%time y = 2", "if x:\n    pass"]), max_size=6)
    )
    def test_line_k_of_the_program_is_line_k_of_the_cell(self, lines: list[str]) -> None:
        body = "\n".join([*lines, "marker = 1"])
        transform = TransformerManager().transform_cell
        program = plan_cell("pai_allreduce", "", body, {}, "inline", transform=transform)[0].program
        (found,) = [n.lineno for n in ast.walk(program.tree()) if isinstance(n, ast.Name) and n.id == "marker"]
        assert found == 2 + body[: body.index("marker")].count("\n")

    def test_ipython_syntax_becomes_python(self) -> None:
        transform = TransformerManager().transform_cell
        program = plan_cell("pai_allreduce", "", "\n%time x = 1\n", {}, "inline", transform=transform)[0].program
        assert program.source.startswith("\n\nget_ipython()")

    def test_windows_line_ends(self) -> None:
        program = plan_cell(
            "pai_allreduce", "", "\r\nx = 1\r\ny = 2", {}, "inline", transform=TransformerManager().transform_cell
        )[0].program
        assert [node.lineno for node in program.tree().body] == [3, 4]


class TestMapReduce:
    def test_an_input_that_is_a_variable(self) -> None:
        plan = planned("pai_mapreduce", "-i docs", WORD_COUNT, docs=["a"])
        assert plan.options["inputs"] == [{"variable": "docs"}]
        assert input_variables(plan) == ("docs",)

    @pytest.mark.parametrize("text", ["corpus/*.txt", "a.txt", "s3://bucket/x.csv", "my-file", "/tmp"])
    def test_an_input_that_is_a_file(self, text: str) -> None:
        plan = planned("pai_mapreduce", f"-i {text}", WORD_COUNT, docs=["a"])
        assert plan.options["inputs"] == [text]
        assert input_variables(plan) == ()

    def test_a_file_named_like_a_variable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("README").write_text("text")
        assert planned("pai_mapreduce", "-i README", WORD_COUNT).options["inputs"] == ["README"]
        with_variable = planned("pai_mapreduce", "-i README ./README", WORD_COUNT, README=[])
        assert with_variable.options["inputs"] == [{"variable": "README"}, "./README"]

    def test_a_name_that_is_neither_is_named(self) -> None:
        message = refused("pai_mapreduce", "-i nothing_here")
        assert message == (
            "-i nothing_here: the notebook has no variable 'nothing_here', and there is no file of that name"
        )

    def test_an_input_is_needed(self) -> None:
        assert refused("pai_mapreduce", "-o x").startswith("%%pai_mapreduce needs an input: -i FILES")

    @pytest.mark.parametrize(
        ("line", "out", "kind"),
        [
            ("", None, "none"),
            ("-o counts", "counts", "variable"),
            ("-o counts.parquet", "counts.parquet", "path"),
            ("-o out/counts", "out/counts", "path"),
            ("-o my-counts", "my-counts", "path"),
        ],
    )
    def test_what_becomes_of_the_output(self, line: str, out: str | None, kind: str) -> None:
        options = planned("pai_mapreduce", f"-i docs {line}", WORD_COUNT, docs=[]).options
        assert (options["out"], options["out_kind"]) == (out, kind)

    def test_the_rest(self) -> None:
        line = "-i docs --format jsonl --reducers 3 --as dataframe --overwrite"
        options = planned("pai_mapreduce", line, WORD_COUNT, docs=[]).options
        assert (options["format"], options["reducers"], options["as"], options["overwrite"]) == (
            "jsonl",
            3,
            "dataframe",
            True,
        )


class TestParameterServer:
    def test_defaults(self) -> None:
        plan = planned("pai_ps", "-n 2", TRAIN)
        assert plan.options == {"consistency": "bsp", "staleness": 1, "until": None}
        assert plan.resources.servers == 1

    @pytest.mark.parametrize(("line", "staleness"), [("", 1), ("--staleness 0", 0), ("--staleness 4", 4)])
    def test_staleness_belongs_to_ssp(self, line: str, staleness: int) -> None:
        plan = planned("pai_ps", f"--consistency ssp {line}", TRAIN)
        assert plan.options["staleness"] == staleness

    @pytest.mark.parametrize("consistency", ["bsp", "asp"])
    def test_staleness_means_nothing_elsewhere(self, consistency: str) -> None:
        message = refused("pai_ps", f"--consistency {consistency} --staleness 4")
        assert message == f"--staleness goes with --consistency ssp; this cell says {consistency}"


@pytest.mark.parametrize("magic", ["pai_allreduce", "pai_ps"])
def test_only_a_mapreduce_writes_files(magic: str) -> None:
    assert refused(magic, "-o out.parquet") == "-o out.parquet: the name of a notebook variable is expected here"
    assert planned(magic, "-o result", TRAIN).runtime == magic.removeprefix("pai_")


@pytest.mark.parametrize(("text", "path"), [("a", False), ("größe", False), ("a.b", True), ("a/b", True), ("1a", True)])
def test_is_path(text: str, path: bool) -> None:
    assert is_path(text) is path
