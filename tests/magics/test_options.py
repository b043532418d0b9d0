"""The grammar of the cell magics' lines."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.data.formats import FORMATS
from paibook.errors import PlanError
from paibook_magics.cells import MAGICS
from paibook_magics.examples import EXAMPLES
from paibook_magics.options import parse_pai_cluster, parse_targets, parser

DEFAULTS = {
    "workers": 0,
    "gpus": 0,
    "targets": None,
    "push": (),
    "pull": (),
    "noblock": False,
    "detach": False,
    "timeout": None,
    "progress_after": 2.0,
    "local": False,
    "group_outputs": False,
    "name": "",
    "hp": [],
    "dry_run": False,
    "cluster": None,
}
SHARED = [
    ("-n 4", "workers", 4),
    ("-n4", "workers", 4),
    ("--workers 4", "workers", 4),
    ("--workers=4", "workers", 4),
    ("-g 1", "gpus", 1),
    ("--gpus 0", "gpus", 0),
    ("-t 0,2", "targets", "0,2"),
    ("--targets ::2", "targets", "::2"),
    ("-t=-1:", "targets", "-1:"),
    ("--push a,b", "push", ("a", "b")),
    ("--push 'a, b,'", "push", ("a", "b")),
    ("--push größe", "push", ("größe",)),
    ("--pull c@1,d", "pull", ("c@1", "d")),
    ("-a", "noblock", True),
    ("--noblock", "noblock", True),
    ("--detach", "detach", True),
    ("--timeout 1.5", "timeout", 1.5),
    ("--progress-after 0.5", "progress_after", 0.5),
    ("--local", "local", True),
    ("--group-outputs", "group_outputs", True),
    ("--name 'my run'", "name", "my run"),
    ("--hp lr=0.1 batch_size=64", "hp", ["lr=0.1", "batch_size=64"]),
    ("--hp lr=0.1 -n 2 --hp batch_size=64", "hp", ["lr=0.1", "batch_size=64"]),
    ("--hp lr=-1", "hp", ["lr=-1"]),
    ("--dry-run", "dry_run", True),
    ("--cluster tcp://host:8786", "cluster", "tcp://host:8786"),
    ("""--cluster '{"worker":{"count":2}}'""", "cluster", '{"worker":{"count":2}}'),
]
SLICES = st.tuples(*[st.none() | st.integers(-9, 9)] * 2, st.none() | st.integers(-4, 4).filter(bool))


def refused(magic: str, line: str) -> str:
    with pytest.raises(PlanError) as caught:
        parser(magic).parse_line(line)
    return str(caught.value)


@pytest.mark.parametrize("magic", MAGICS)
class TestShared:
    def test_every_magic_has_the_same_defaults(self, magic: str) -> None:
        values = vars(parser(magic).parse_line(""))
        assert {name: values[name] for name in DEFAULTS} == DEFAULTS

    @pytest.mark.parametrize(("line", "name", "value"), SHARED)
    def test_every_magic_takes_every_shared_option(self, magic: str, line: str, name: str, value: Any) -> None:
        values = parser(magic).parse_line(line)
        assert getattr(values, name) == value

    def test_one_line_leaves_nothing_for_the_next(self, magic: str) -> None:
        made = parser(magic)
        made.parse_line("--hp lr=1 --push a -n 3")
        assert made.parse_line("").hp == []

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("-n 0", ["-n/--workers", "at least 1 is expected, got 0"]),
            ("-n x", ["-n/--workers", "a whole number is expected, got 'x'"]),
            ("-n 2.5", ["-n/--workers", "a whole number is expected, got '2.5'"]),
            ("-n", ["-n/--workers", "expected one argument"]),
            ("-g -1", ["-g/--gpus", "at least 0"]),
            ("--timeout 0", ["--timeout", "seconds above 0 are expected, got 0"]),
            ("--timeout nan", ["--timeout", "seconds above 0 are expected, got nan"]),
            ("--timeout inf", ["--timeout", "got inf"]),
            ("--timeout 1e300", ["--timeout", "got 1e300"]),
            ("--timeout soon", ["--timeout", "seconds are expected, got 'soon'"]),
            ("--push a+b", ["--push", "variable names are expected, separated by commas; got 'a+b'"]),
            ("--push 1a", ["--push", "'1a'"]),
            ("--pull a@x", ["--pull", "'a@x'"]),
            ("--pull a@1@2", ["--pull", "'a@1@2'"]),
            ("--hp", ["--hp", "expected at least one argument"]),
        ],
    )
    def test_a_bad_value_says_what_was_expected(self, magic: str, line: str, words: list[str]) -> None:
        message = refused(magic, line)
        assert message.startswith(f"%%{magic}: ")
        assert message.endswith(f"`%%{magic}?` shows every option")
        for word in words:
            assert word in message

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("--worker 2", "--workers"),
            ("--tmeout 3", "--timeout"),
            ("--no-block", "--noblock"),
            ("--dryrun", "--dry-run"),
            ("--group-output", "--group-outputs"),
            ("--target=1", "--targets"),
        ],
    )
    def test_an_unknown_option_is_told_the_nearest(self, magic: str, typed: str, meant: str) -> None:
        message = refused(magic, typed)
        word = typed.split()[0]
        assert f"unknown option {word!r}; did you mean {meant}?" in message

    def test_an_option_like_no_other_gets_no_suggestion(self, magic: str) -> None:
        message = refused(magic, "--zzz")
        assert "unknown option '--zzz'; `%%" in message

    def test_options_are_not_abbreviated(self, magic: str) -> None:
        assert "unknown option '--work'" in refused(magic, "--work 2")

    def test_a_stray_word_is_named(self, magic: str) -> None:
        assert "unknown word 'stray'" in refused(magic, "-n 2 stray")

    @pytest.mark.parametrize("line", ["--name 'open", '--until "loss < 1', "ends with \\"])
    def test_quotes_that_do_not_close(self, magic: str, line: str) -> None:
        assert f"%%{magic}: cannot read the line: No " in refused(magic, line)

    def test_help_has_every_option_and_an_example(self, magic: str) -> None:
        text = parser(magic).format_help()
        for action in parser(magic)._actions:
            assert action.option_strings[-1] in text
        for _title, cells in EXAMPLES[magic]:
            for cell in cells:
                assert cell in text


class TestOwn:
    def test_mapreduce(self) -> None:
        line = "-i a/*.txt docs --input s3://x/y.csv --format csv --reducers 3 --as dataframe --overwrite"
        values = parser("pai_mapreduce").parse_line(line)
        assert values.input == ["a/*.txt", "docs", "s3://x/y.csv"]
        assert (values.format, values.reducers, values.kind, values.overwrite) == ("csv", 3, "dataframe", True)

    @pytest.mark.parametrize(
        ("line", "name", "value"),
        [
            ("", "out", []),
            ("-o counts", "out", ["counts"]),
            (
                "-o main.parquet bad=bad.jsonl -o counts=counts_var",
                "out",
                ["main.parquet", "bad=bad.jsonl", "counts=counts_var"],
            ),
            ("-i users=users.csv docs", "input", ["users=users.csv", "docs"]),
            ("--resource a.txt b.txt --resource c.txt", "resource", ["a.txt", "b.txt", "c.txt"]),
            ("", "max_bad", None),
            ("--max-bad 0", "max_bad", 0),
            ("--max-bad 100", "max_bad", 100),
            ("--max-bad 0.5%", "max_bad", 0.005),
            ("--max-bad '2 %'", "max_bad", 0.02),
            ("--sample 1%", "sample", 0.01),
            ("--sample 0.25", "sample", 0.25),
            ("--sample 100%", "sample", 1.0),
            ("--memory 512MB", "memory", 512_000_000),
            ("--memory '1.5 GiB'", "memory", 3 << 29),
            ("", "sort", None),
            ("--sort", "sort", "asc"),
            ("--sort --reducers 2", "sort", "asc"),
            ("--sort desc", "sort", "desc"),
            ("--key country,year", "key", ("country", "year")),
            ("--key 'first name, größe'", "key", ("first name", "größe")),
            ("--partition-by year", "partition_by", ("year",)),
            ("", "backups", True),
            ("--no-backups", "backups", False),
            ("--sql", "sql", True),
        ],
    )
    def test_mapreduce_values(self, line: str, name: str, value: Any) -> None:
        found = getattr(parser("pai_mapreduce").parse_line(line), name)
        assert found == value
        assert type(found) is type(value)

    @pytest.mark.parametrize("format", FORMATS)
    def test_every_format_there_is(self, format: str) -> None:
        assert parser("pai_mapreduce").parse_line(f"--format {format}").format == format

    @pytest.mark.parametrize("magic", ["pai_allreduce", "pai_ps"])
    def test_the_other_models_have_one_result(self, magic: str) -> None:
        assert parser(magic).parse_line("").out is None
        assert parser(magic).parse_line("-o result").out == "result"
        assert "unknown word 'b=c'" in refused(magic, "-o a b=c")

    def test_allreduce(self) -> None:
        assert parser("pai_allreduce").parse_line("").backend == "auto"
        assert parser("pai_allreduce").parse_line("--backend shared").backend == "shared"
        assert "invalid choice: 'smoke'" in refused("pai_allreduce", "--backend smoke")

    @pytest.mark.parametrize("magic", ["pai_allreduce", "pai_ps"])
    def test_where_ranks_go(self, magic: str) -> None:
        assert parser(magic).parse_line("").placement == "spread"
        assert parser(magic).parse_line("--placement pack").placement == "pack"
        assert "invalid choice: 'dense'" in refused(magic, "--placement dense")

    def test_ps(self) -> None:
        line = '--servers 2 --consistency ssp --staleness 0 --until "loss < 0.3 or epoch >= 20"'
        values = parser("pai_ps").parse_line(line)
        assert (values.servers, values.consistency, values.staleness) == (2, "ssp", 0)
        assert values.until == "loss < 0.3 or epoch >= 20"

    @pytest.mark.parametrize(
        ("magic", "line", "word"),
        [
            ("pai_ps", "--consistency eventual", "'eventual'"),
            ("pai_ps", "--servers 0", "at least 1"),
            ("pai_ps", "--staleness -1", "--staleness"),
            ("pai_mapreduce", "--format xml", "'xml'"),
            ("pai_mapreduce", "--as table", "'table'"),
            ("pai_mapreduce", "--reducers 0", "at least 1"),
            ("pai_mapreduce", "-i", "-i/--input"),
            ("pai_mapreduce", "-o", "-o/--out"),
            ("pai_mapreduce", "--resource", "--resource: expected at least one"),
            ("pai_mapreduce", "--max-bad -1", "--max-bad: a number of records or a share of them is expected, such as"),
            ("pai_mapreduce", "--max-bad 101%", "got '101%'"),
            ("pai_mapreduce", "--max-bad 0.5", "got '0.5'"),
            ("pai_mapreduce", "--max-bad ²", "got '²'"),
            ("pai_mapreduce", "--sample 0", "--sample: a share above 0 is expected, such as 1%, 0.01 or 100%; got '0'"),
            ("pai_mapreduce", "--sample 0%", "got '0%'"),
            ("pai_mapreduce", "--sample 200%", "got '200%'"),
            ("pai_mapreduce", "--sample 1", "got '1'"),
            ("pai_mapreduce", "--sample -0.1", "got '-0.1'"),
            ("pai_mapreduce", "--sample nan", "got 'nan'"),
            ("pai_mapreduce", "--sample some", "got 'some'"),
            ("pai_mapreduce", "--memory banana", "--memory: a size with its unit is expected, such as 512MB or 2GiB"),
            ("pai_mapreduce", "--memory 512", "got '512'"),
            ("pai_mapreduce", "--memory 0MB", "a size above 0 is expected, got '0MB'"),
            ("pai_mapreduce", "--sort up", "'up'"),
            ("pai_mapreduce", "--key a,a", "different column names are expected"),
            ("pai_mapreduce", "--key ,", "got ','"),
            ("pai_mapreduce", "--partition-by ''", "different column names are expected"),
        ],
    )
    def test_bad_values(self, magic: str, line: str, word: str) -> None:
        assert word in refused(magic, line)

    @pytest.mark.parametrize(
        ("magic", "line"),
        [("pai_allreduce", "--servers 2"), ("pai_ps", "--reducers 2"), ("pai_mapreduce", "--until x")],
    )
    def test_one_models_options_are_unknown_to_the_others(self, magic: str, line: str) -> None:
        assert f"unknown option {line.split()[0]!r}" in refused(magic, line)


class TestTargets:
    @pytest.mark.parametrize(
        ("text", "size", "ranks"),
        [
            (None, 4, None),
            ("all", 4, None),
            ("0", 4, (0,)),
            ("0,2", 4, (0, 2)),
            ("0-2", 4, (0, 1, 2)),
            ("2,0-1,2", 4, (2, 0, 1)),
            (" 1 , 3 ", 4, (1, 3)),
            ("::2", 5, (0, 2, 4)),
            ("1:3", 4, (1, 2)),
            ("-1:", 4, (3,)),
            (":-1", 3, (0, 1)),
            ("5", 0, (5,)),
            ("0-2", 0, (0, 1, 2)),
        ],
    )
    def test_ranks(self, text: str | None, size: int, ranks: tuple[int, ...] | None) -> None:
        assert parse_targets(text, size) == ranks

    @pytest.mark.parametrize("text", ["", "x", "1-", "-1", "1:2:3:4", "0;1", "0,", "1.5", "0--2"])
    def test_what_names_no_rank_is_refused(self, text: str) -> None:
        with pytest.raises(PlanError) as caught:
            parse_targets(text, 4)
        assert str(caught.value) == f"-t {text}: ranks are given as 0  0,2  0-2  ::2 or all"

    @pytest.mark.parametrize("text", ["2-1", "4:", "2:2", "3:1"])
    def test_what_names_no_rank_at_all_is_refused(self, text: str) -> None:
        with pytest.raises(PlanError, match=f"-t {text}: no rank is chosen"):
            parse_targets(text, 4)

    def test_a_slice_without_step_is_refused(self) -> None:
        with pytest.raises(PlanError, match="-t ::0: "):
            parse_targets("::0", 4)

    def test_a_slice_needs_the_number_of_ranks(self) -> None:
        with pytest.raises(PlanError, match="-t ::2: a slice needs -n"):
            parse_targets("::2", 0)

    @pytest.mark.parametrize(("text", "wrong"), [("4", 4), ("0,7", 7), ("2-5", 4), ("0-99999999999", 2)])
    def test_a_rank_that_does_not_exist_is_named(self, text: str, wrong: int) -> None:
        size = min(4, wrong)
        with pytest.raises(PlanError, match=f"there is no rank {wrong}; with -n {size} the ranks are 0 to {size - 1}"):
            parse_targets(text, size)

    @given(SLICES, st.integers(1, 12))
    def test_slices_are_pythons(self, bounds: tuple[int | None, int | None, int | None], size: int) -> None:
        text = ":".join("" if bound is None else str(bound) for bound in bounds)
        ranks = tuple(range(size)[slice(*bounds)])
        if ranks:
            assert parse_targets(text, size) == ranks
        else:
            with pytest.raises(PlanError):
                parse_targets(text, size)


class TestPaiCluster:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ('{"ps":{"count":1},"worker":{"count":2,"gpu":100}}', {"servers": 1, "workers": 2, "gpus": 1}),
            ('{"worker":{"count":3}}', {"workers": 3}),
            ('{"worker":{}}', {"workers": 1}),
            ('{"ps":{"count":2}}', {"servers": 2}),
            ('{"worker":{"count":1,"gpu":50}}', {"workers": 1, "gpus": 1, "gpu_share": 50}),
            ('{"worker":{"count":1,"gpu":250}}', {"workers": 1, "gpus": 3}),
            ('{"worker":{"count":1,"cpu":200,"memory":4096}}', {"workers": 1}),
            ("{}", {}),
        ],
    )
    def test_counts(self, text: str, found: dict[str, int]) -> None:
        assert parse_pai_cluster(text) == found

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "{worker:{count:2}}",
            '{"worker":3}',
            '{"worker":{"count":"many"}}',
            '{"worker":{"count":1e999}}',
            '{"ps":null}',
        ],
    )
    def test_what_is_not_pais_json_is_shown_what_is(self, text: str) -> None:
        with pytest.raises(PlanError, match=r'--cluster takes PAI\'s JSON .*\{"ps":\{"count":1\}') as caught:
            parse_pai_cluster(text)
        assert repr(text) in str(caught.value)
        assert "quotes" in str(caught.value)

    def test_an_unknown_role_is_named(self) -> None:
        with pytest.raises(PlanError, match="unknown role 'chief'; PAI's roles here are worker and ps"):
            parse_pai_cluster('{"worker":{"count":1},"chief":{"count":1}}')
