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
from paibook.hyperparameters import HyperParameters
from paibook.plan import Plan
from paibook.resources import Resources
from paibook_magics.examples import EXAMPLES
from paibook_magics.mapreduce_planning import input_variables, is_path, output_variables
from paibook_magics.planning import plan_cell

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
        assert planned("pai_ps", "-n 2 --placement pack").resources == Resources(2, 1, placement="pack")
        assert plan.hyperparameters == {"lr": 0.1, "opt": "adam"}
        assert plan.program.filename == "Cell In[3]"

    def test_a_detached_cell_has_a_plan_that_says_so(self) -> None:
        plan = planned("pai_allreduce", "--detach -o kept")
        assert plan.detach
        assert plan.options["out"] == "kept"
        assert Plan.from_json(plan.to_json()) == plan
        assert not planned("pai_allreduce", "").detach

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

    def test_a_model_of_the_notebook_checks_the_words_and_gives_the_rest(self) -> None:
        defaults = {"lr": 0.5, "schedule": {"warmup": 5, "kind": "linear"}}
        plan = planned("pai_allreduce", "--hp defaults schedule.warmup=7 -n 2", defaults=defaults)
        assert plan.hyperparameters == {"lr": 0.5, "schedule": {"warmup": 7, "kind": "linear"}}
        assert "did you mean lr?" in refused("pai_allreduce", "--hp defaults lrr=1", defaults=defaults)
        assert "lr: Input should be a valid number" in refused("pai_ps", "--hp defaults lr=x", defaults=defaults)

    def test_an_instance_gives_its_own_values(self) -> None:
        made = HyperParameters.of({"lr": 0.5, "steps": 3}).from_pairs(["steps=9"])
        assert planned("pai_allreduce", "--hp made lr=1", made=made).hyperparameters == {"lr": 1.0, "steps": 9}

    def test_what_is_no_model_is_named(self) -> None:
        assert "x is of type int" in refused("pai_allreduce", "--hp x lr=1", x=3)
        assert "'a' and 'b'" in refused("pai_allreduce", "--hp a b", a={}, b={})


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

    def test_what_no_option_says(self) -> None:
        plan = planned("pai_mapreduce", "-i docs", WORD_COUNT, docs=[])
        assert plan.resources.memory is None
        assert plan.options == {
            "inputs": [{"variable": "docs"}],
            "format": None,
            "out": None,
            "out_kind": "none",
            "outputs": {},
            "as": "list",
            "reducers": None,
            "overwrite": False,
            "sort": None,
            "key": [],
            "partition_by": [],
            "resources": [],
            "max_bad": None,
            "sample": None,
            "sql": False,
            "backups": True,
        }

    def test_what_every_option_says(self, tmp_path: Path) -> None:
        words = tmp_path / "words.txt"
        words.write_text("the")
        line = f"-i docs -o a/b --sort desc --key k,l --partition-by p --resource {words} --max-bad 1% --sample 10%"
        plan = planned("pai_mapreduce", f"{line} --memory 1GiB --no-backups", WORD_COUNT, docs=[])
        found = {name: plan.options[name] for name in ("sort", "key", "partition_by", "resources", "max_bad", "sample")}
        assert found == {
            "sort": "desc",
            "key": ["k", "l"],
            "partition_by": ["p"],
            "resources": [str(words)],
            "max_bad": 0.01,
            "sample": 0.1,
        }
        assert plan.options["backups"] is False
        assert plan.resources.memory == 1 << 30
        assert Plan.from_json(plan.to_json()) == plan

    def test_the_rest(self) -> None:
        line = "-i docs --format jsonl --reducers 3 --as dataframe --overwrite"
        options = planned("pai_mapreduce", line, WORD_COUNT, docs=[]).options
        assert (options["format"], options["reducers"], options["as"], options["overwrite"]) == (
            "jsonl",
            3,
            "dataframe",
            True,
        )


def inputs(line: str, body: str = WORD_COUNT, **namespace: Any) -> list[Any]:
    return list(planned("pai_mapreduce", f"-i {line}", body, **namespace).options["inputs"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
class TestNamedInputs:
    def test_a_path_a_variable_and_a_run(self) -> None:
        assert inputs("users=users.csv orders=bought docs old=run:ab12", bought=[], docs=[]) == [
            {"path": "users.csv", "name": "users"},
            {"variable": "bought", "name": "orders"},
            {"variable": "docs"},
            {"run": "ab12", "name": "old"},
        ]

    def test_the_variables_are_sent_once(self) -> None:
        plan = planned("pai_mapreduce", "-i a=docs b=docs users=users.csv c=run:1 docs", WORD_COUNT, docs=[])
        assert input_variables(plan) == ("docs",)

    def test_a_run_without_a_name(self) -> None:
        assert inputs("run:ab12") == [{"run": "ab12"}]

    def test_one_name_may_stand_for_several(self) -> None:
        assert [entry["name"] for entry in inputs("logs=a.txt logs=b.txt")] == ["logs", "logs"]

    @pytest.mark.parametrize("line", ["year=2024", "year=2024/month=1", "year=*", "year=2024/*", "./year=2024"])
    def test_hive_folders_that_exist_stay_paths(self, folder: Path, line: str) -> None:
        (folder / "year=2024" / "month=1").mkdir(parents=True)
        assert inputs(f"'{line}'") == [line]

    def test_unless_the_cell_has_a_mapper_of_that_name(self, folder: Path) -> None:
        (folder / "year=2024").mkdir()
        (folder / "2024").mkdir()
        body = WORD_COUNT + "def map_year(record): yield record, 1\n"
        assert inputs("year=2024", body) == [{"path": "2024", "name": "year"}]
        assert inputs("year=2024", WORD_COUNT + "map_year = map\n") == [{"path": "2024", "name": "year"}]

    @pytest.mark.parametrize(
        "text", ["data/year=2024", "s3://bucket/a=b.csv", "https://host/x?y=z", "my-users=a.csv", "=a.csv"]
    )
    def test_what_has_no_name_in_front_is_a_path(self, text: str) -> None:
        assert inputs(text) == [text]

    def test_values_may_hold_equals_signs(self) -> None:
        assert inputs("users=https://host/x?y=z") == [{"path": "https://host/x?y=z", "name": "users"}]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("users=", "-i users=: what is the input 'users'? Write users=PATH, or users=NAME of a variable"),
            (
                "users=nothing_here",
                "-i users=nothing_here: the notebook has no variable 'nothing_here', and there is no file of that name",
            ),
            ("run:", "-i run:: which run? Write run:ID; %pai_runs lists them"),
            ("old=run:", "-i old=run:: which run? Write run:ID; %pai_runs lists them"),
        ],
    )
    def test_what_cannot_be_meant(self, line: str, message: str) -> None:
        assert refused("pai_mapreduce", f"-i {line}") == message


@pytest.mark.usefixtures("folder")
class TestOutputs:
    def outputs(self, line: str) -> tuple[Any, Any, Any]:
        plan = planned("pai_mapreduce", f"-i docs {line}", WORD_COUNT, docs=[])
        return plan.options["out"], plan.options["out_kind"], plan.options["outputs"]

    def test_main_and_named(self) -> None:
        assert self.outputs("-o main.parquet bad=bad.jsonl counts=counts_var") == (
            "main.parquet",
            "path",
            {"bad": {"kind": "path", "target": "bad.jsonl"}, "counts": {"kind": "variable", "target": "counts_var"}},
        )

    def test_the_main_one_may_stand_anywhere_or_nowhere(self) -> None:
        assert self.outputs("-o bad=bad.jsonl -o main")[:2] == ("main", "variable")
        assert self.outputs("-o bad=bad.jsonl")[:2] == (None, "none")

    def test_named_outputs_that_are_variables(self) -> None:
        plan = planned("pai_mapreduce", "-i docs -o bad=bad.jsonl counts=kept", WORD_COUNT, docs=[])
        assert output_variables(plan) == {"counts": "kept"}
        assert output_variables(planned("pai_allreduce", "")) == {}

    def test_an_equals_sign_within_a_path(self) -> None:
        assert self.outputs("-o out/year=2024") == ("out/year=2024", "path", {})

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("-o a=1 a=2", "-o a=2: two outputs are called 'a'"),
            ("-o bad=", "-o bad=: a named output is written NAME=PATH or NAME=VARIABLE"),
            ("-o my-bad=x", "-o my-bad=x: a named output is written NAME=PATH or NAME=VARIABLE"),
            ("-o one.parquet two.parquet", "-o one.parquet two.parquet: there is one main output; name the others,"),
            ("-o one -o two", 'as in -o one NAME=two, and yield pai.output("NAME", record)'),
            ("-o x.jsonl bad=./x.jsonl", "-o x.jsonl ./x.jsonl: two outputs cannot both go to ./x.jsonl"),
            ("-o a=kept b=kept", "two outputs cannot both go to kept"),
        ],
    )
    def test_what_cannot_be_meant(self, line: str, message: str) -> None:
        assert message in refused("pai_mapreduce", f"-i docs {line}", docs=[])

    @pytest.mark.parametrize("line", ["", "-o kept", "-o bad=kept"])
    def test_folders_need_a_path(self, line: str) -> None:
        message = refused("pai_mapreduce", f"-i docs --partition-by a {line}", docs=[])
        assert message == "--partition-by makes folders of an output path: -o PATH"
        assert planned("pai_mapreduce", "-i docs --partition-by a -o bad=b.csv", WORD_COUNT, docs=[]).options


class TestResources:
    def test_each_file_once(self, folder: Path) -> None:
        (folder / "a.txt").write_text("a")
        plan = planned("pai_mapreduce", "-i docs --resource a.txt a.txt", WORD_COUNT, docs=[])
        assert plan.options["resources"] == ["a.txt"]

    def test_home_is_known(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(folder))
        (folder / "a.txt").write_text("a")
        plan = planned("pai_mapreduce", "-i docs --resource ~/a.txt", WORD_COUNT, docs=[])
        assert plan.options["resources"] == [str(folder / "a.txt")]

    def test_what_is_no_file_is_refused(self, folder: Path) -> None:
        (folder / "b").mkdir()
        message = refused("pai_mapreduce", "-i docs --resource none.txt", docs=[])
        assert message == f"--resource none.txt: this is no file; looked for in {folder}"
        assert "this is a folder; a file is expected" in refused("pai_mapreduce", "-i docs --resource b", docs=[])

    def test_names_tell_them_apart(self, folder: Path) -> None:
        for name in ("a.txt", "b/a.txt"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("a")
        message = refused("pai_mapreduce", "-i docs --resource a.txt b/a.txt", docs=[])
        assert message.startswith("--resource b/a.txt: there are two files called 'a.txt'")


@pytest.mark.usefixtures("folder")
class TestSql:
    QUERY = "SELECT %x FROM users -- {no} Python\nWHERE y = '!ls'\n"

    def test_the_cell_is_kept_as_it_is(self) -> None:
        plan, _ = plan_cell(
            "pai_mapreduce",
            "--sql -i users=users.csv",
            self.QUERY,
            {},
            "inline",
            transform=TransformerManager().transform_cell,
        )
        assert plan.options["sql"] is True
        assert plan.program.source == "\n" + self.QUERY

    def test_every_input_has_a_name(self, folder: Path) -> None:
        (folder / "year=2024").mkdir()
        line = "users year=2024 old=run:ab12 --sql"
        assert inputs(line, self.QUERY, users=[]) == [
            {"variable": "users", "name": "users"},
            {"path": "2024", "name": "year"},
            {"run": "ab12", "name": "old"},
        ]

    @pytest.mark.parametrize(
        ("text", "example"),
        [
            ("data/users.csv.gz", "users=data/users.csv.gz"),
            ("'logs/*.txt'", "NAME=logs/*.txt"),
            ("run:2024-x", "NAME=run:2024-x"),
        ],
    )
    def test_a_path_without_a_name_is_refused(self, text: str, example: str) -> None:
        message = refused("pai_mapreduce", f"--sql -i {text}")
        assert message.endswith(f"--sql needs a name for this input, as in -i {example}")

    @pytest.mark.parametrize(
        ("line", "option", "advice"),
        [
            ("--key a", "--key", "GROUP BY"),
            ("--sort", "--sort", "ORDER BY"),
            ("--resource a.txt", "--resource", "-i NAME=FILE"),
            ("--push users", "--push", "-i NAME"),
            ("--hp lr=1", "--hp", "into the query"),
            ("--max-bad 0", "--max-bad", "TRY_CAST"),
            ("--local", "--local", "does not run in the notebook"),
            ("-o main bad=b.csv", "named outputs", "one result"),
        ],
    )
    def test_options_that_make_no_sense(self, folder: Path, line: str, option: str, advice: str) -> None:
        (folder / "a.txt").write_text("a")
        message = refused("pai_mapreduce", f"-i users --sql {line}", users=[])
        assert message.startswith(f"--sql does not go with {option}: ")
        assert advice in message

    def test_options_that_do(self) -> None:
        line = "-i users --sql -o out.parquet --partition-by a --reducers 3 --sample 1% --memory 1GB --overwrite"
        assert planned("pai_mapreduce", line, self.QUERY, users=[]).options["sql"] is True

    def test_an_empty_cell(self) -> None:
        with pytest.raises(PlanError) as caught:
            planned("pai_mapreduce", "-i users orders=o.csv --sql", "  \n", users=[])
        assert str(caught.value) == "--sql: the cell is empty; write one SELECT query over users, orders"


class TestParameterServer:
    def test_defaults(self) -> None:
        plan = planned("pai_ps", "-n 2", TRAIN)
        assert plan.options == {
            "consistency": "bsp",
            "staleness": 1,
            "until": None,
            "replicas": None,
            "max_restarts": 3,
            "checkpoint": None,
            "checkpoint_every": None,
            "nan": "stop",
            "out": None,
        }
        assert plan.resources.servers == 1

    @pytest.mark.parametrize(("line", "staleness"), [("", 1), ("--staleness 0", 0), ("--staleness 4", 4)])
    def test_staleness_belongs_to_ssp(self, line: str, staleness: int) -> None:
        plan = planned("pai_ps", f"--consistency ssp {line}", TRAIN)
        assert plan.options["staleness"] == staleness

    @pytest.mark.parametrize("consistency", ["bsp", "asp"])
    def test_staleness_means_nothing_elsewhere(self, consistency: str) -> None:
        message = refused("pai_ps", f"--consistency {consistency} --staleness 4")
        assert message == f"--staleness goes with --consistency ssp; this cell says {consistency}"


@pytest.mark.parametrize("magic", sorted(EXAMPLES))
def test_the_examples_of_the_help_can_be_planned(magic: str) -> None:
    namespace: dict[str, Any] = {}
    plans = []
    for _title, cells in EXAMPLES[magic]:
        for cell in cells:
            if not cell.startswith("%%"):
                exec(cell, namespace)
                continue
            first, _, body = cell.partition("\n")
            name, _, line = first.removeprefix("%%").partition(" ")
            assert name == magic
            plans.append(plan_cell(name, line, body, namespace, "inline")[0])
            if not plans[-1].options.get("sql"):
                plans[-1].program.compile()
    assert len(plans) == len(EXAMPLES[magic])


@pytest.mark.parametrize("magic", ["pai_allreduce", "pai_ps"])
def test_only_a_mapreduce_writes_files(magic: str) -> None:
    assert refused(magic, "-o out.parquet") == "-o out.parquet: the name of a notebook variable is expected here"
    assert planned(magic, "-o result", TRAIN).runtime == magic.removeprefix("pai_")


@pytest.mark.parametrize(("text", "path"), [("a", False), ("größe", False), ("a.b", True), ("a/b", True), ("1a", True)])
def test_is_path(text: str, path: bool) -> None:
    assert is_path(text) is path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-n 2 -g 1 --cards 0,1", (2, 1, 100, ("0", "1"))),
        ("--cards 0,0,1:1", (3, 1, 50, ("0", "0", "1:1"))),
        ("-n 2 --gpu-share 30%", (2, 1, 30, ())),
        ("-g 2 --cards 0,1,2,3", (2, 2, 100, ("0", "1", "2", "3"))),
        ('--cluster \'{"worker":{"count":2,"gpu":50}}\'', (2, 1, 50, ())),
    ],
)
def test_cards_and_shares(line: str, expected: tuple[int, int, int, tuple[str, ...]]) -> None:
    asked = plan_cell("pai_allreduce", line, "1", {}, "inline")[0].resources
    assert (asked.workers, asked.gpus_per_worker, asked.gpu_share, asked.cards) == expected


def test_cards_survive_the_plans_json() -> None:
    plan, _ = plan_cell("pai_allreduce", "--cards 0,1 --cpu-fallback", "1", {}, "inline")
    assert type(plan).from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--cards x", "numbers of GPUs are expected"),
        ("--cards ,", "numbers of GPUs are expected"),
        ("--gpu-share 0.1%", "1% at least is expected"),
        ("--gpu-share 120%", "a share above 0 is expected"),
        ("-n 3 -g 1 --cards 0,1", "cards names 2 cards, and 3 workers with 1 each have 3"),
    ],
)
def test_cards_that_cannot_be_meant_are_refused(line: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        plan_cell("pai_allreduce", line, "1", {}, "inline")
