"""A plan shown before it runs."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook_magics.mapreduce_picture import query_diagram
from paibook_magics.picture import PLAN, Shown, diagram, plan_bundle


def mapreduce(workers: int = 2, reducers: int | None = 3, **options: Any) -> Plan:
    merged = {"inputs": ["a.txt"], "out": None, "reducers": reducers, **options}
    return Plan("mapreduce", Program("def map(r): pass"), Resources(workers), options=merged)


def allreduce(workers: int) -> Plan:
    return Plan("allreduce", Program(""), Resources(workers))


def ps(workers: int, servers: int, until: str | None = None) -> Plan:
    return Plan("ps", Program("def train(ps): pass"), Resources(workers, servers), options={"until": until})


class TestDiagram:
    @pytest.mark.parametrize(("workers", "reducers"), [(1, 1), (2, 3), (4, 4)])
    def test_mapreduce_has_every_map_and_reduce(self, workers: int, reducers: int) -> None:
        lines = diagram(mapreduce(workers, reducers)).splitlines()
        assert lines[0] == "flowchart LR"
        for m in range(workers):
            assert f'  input --> m{m}["map"]' in lines
        for r in range(reducers):
            assert f'  r{r}["reduce"] --> output' in lines
        for m, r in itertools.product(range(workers), range(reducers)):
            assert f"  m{m} --> r{r}" in lines

    @pytest.mark.parametrize("size", [1, 2, 8])
    def test_allreduce_has_every_rank_around_what_they_share(self, size: int) -> None:
        lines = diagram(allreduce(size)).splitlines()
        for rank in range(size):
            assert f'  r{rank}(["rank {rank}"])' in lines
            assert f"  r{rank} <--> hub" in lines
        assert '  hub[("memory of this host")]' in lines
        assert any("this host" in line and "subgraph" in line for line in lines)

    @pytest.mark.parametrize(
        ("cluster", "backend", "hub", "rows"),
        [
            ("embedded", "auto", "memory of this host", ["small all-reduce", "large all-reduce"]),
            ("embedded", "gloo", "gloo", ["all-reduce"]),
            ("embedded", "mpi", "MPI", ["all-reduce"]),
            ("inline", "gloo", "process", ["all-reduce"]),
            ("tcp://there:8786", "auto", "by where the ranks are", ["all-reduce, one host", "all-reduce, several"]),
        ],
    )
    def test_allreduce_tells_the_way_of_its_bytes(self, cluster: str, backend: str, hub: str, rows: list[str]) -> None:
        plan = Plan("allreduce", Program(""), Resources(20), cluster=cluster, options={"backend": backend})
        assert any(hub in line for line in diagram(plan).splitlines() if line.startswith("  hub"))
        assert '  more(["12 more ranks"])' in diagram(plan).splitlines()
        text = plan_bundle(plan)["text/plain"]
        assert all(f"\n{row}" in text for row in rows)
        assert "up to 262 kB, each rank writes" in text or backend != "auto"

    @pytest.mark.parametrize(("workers", "servers"), [(1, 1), (3, 2), (6, 4)])
    def test_ps_has_every_worker_server_and_the_coordinator(self, workers: int, servers: int) -> None:
        lines = diagram(ps(workers, servers)).splitlines()
        for w in range(workers):
            assert f'  w{w}(["worker {w}"])' in lines
        for s in range(servers):
            assert f'  s{s}[("server {s}")]' in lines
        assert sum("<-->" in line for line in lines) == workers * servers
        assert any("coordinator" in line for line in lines)

    @pytest.mark.parametrize("plan", [mapreduce(1000, 1000), allreduce(1000), ps(1000, 1000)])
    def test_many_processes_stay_a_picture(self, plan: Plan) -> None:
        assert len(diagram(plan).splitlines()) < 60

    def test_labels_are_escaped(self) -> None:
        text = diagram(ps(1, 1, 'loss < 0.3 or note == "x>y"'))
        assert "coordinator: loss #lt; 0.3 or note == 'x#gt;y'" in text
        assert '"x' not in text

    def test_a_long_label_is_cut_but_never_inside_an_escape(self) -> None:
        for length in range(30, 45):
            line = diagram(ps(1, 1, "x" * length + "<<<<")).splitlines()[1]
            assert line.count("#") == line.count("#lt;")
            assert len(line) < 90

    def test_inputs_are_named(self) -> None:
        plan = mapreduce(inputs=[{"variable": "docs"}, "b.txt"], out="counts")
        assert 'input[("docs, b.txt")]' in diagram(plan)
        assert 'output[("counts")]' in diagram(plan)


def cell(source: str, **options: Any) -> list[str]:
    """Lines of the picture of a MapReduce cell with two workers and two reducers."""
    merged = {"inputs": ["a.txt"], "out": None, **options}
    return diagram(Plan("mapreduce", Program(source), Resources(2), options=merged)).splitlines()[1:]


MAP = "def map(r): pass\n"
REDUCE = "def reduce(k, v): pass\n"
USERS = {"path": "users.csv", "name": "users"}
ORDERS = {"variable": "bought", "name": "orders"}


class TestMapReduce:
    def test_named_inputs_go_to_their_mappers(self) -> None:
        lines = cell(MAP + REDUCE + "def map_users(r): pass", inputs=[USERS, ORDERS, {"run": "ab12"}])
        assert lines == [
            '  input[("run:ab12")]',
            '  in_0[("users=users.csv")]',
            '  in_1[("orders=bought")]',
            '  output[("result")]',
            '  input --> m0["map"]',
            '  in_0 --> m1["map_users"]',
            '  in_1 --> m2["map"]',
            *(f"  m{m} --> r{r}" for m in range(3) for r in range(2)),
            '  r0["reduce"] --> output',
            '  r1["reduce"] --> output',
        ]

    def test_inputs_of_one_name_are_one(self) -> None:
        lines = cell(MAP + REDUCE, inputs=[USERS, {**USERS, "path": "more.csv"}])
        assert lines[0] == '  in_0[("users=users.csv, users=more.csv")]'
        assert sum(line.endswith('["map"]') for line in lines) == 2

    def test_every_stage_has_a_shuffle(self) -> None:
        lines = cell(MAP + REDUCE + "def map2(r): pass\nreduce2 = pai.Sum()\ndef reduce3(k, v): pass")
        assert lines[2:] == [
            '  input --> m0["map"]',
            '  input --> m1["map"]',
            *(f"  m{m} --> r{r}" for m in range(2) for r in range(2)),
            '  r0["reduce, map2"]',
            '  r1["reduce, map2"]',
            *(f"  r{m} --> s2r{r}" for m in range(2) for r in range(2)),
            '  s2r0["reduce2"]',
            '  s2r1["reduce2"]',
            *(f"  s2r{m} --> s3r{r}" for m in range(2) for r in range(2)),
            '  s3r0["reduce3"] --> output',
            '  s3r1["reduce3"] --> output',
        ]

    def test_a_combiner_runs_where_map_does(self) -> None:
        assert '  input --> m0["map, combine"]' in cell(MAP + REDUCE + "def combine(k, v): pass")

    def test_without_reduce_nothing_is_shuffled(self) -> None:
        assert cell(MAP + "reduce = None")[2:] == [
            '  input --> m0["map"]',
            '  input --> m1["map"]',
            "  m0 --> output",
            "  m1 --> output",
        ]

    def test_named_outputs(self) -> None:
        lines = cell(MAP + REDUCE, out="main.parquet", outputs={"bad": {"kind": "path", "target": "bad.jsonl"}})
        assert lines[1:3] == ['  output[("main.parquet")]', '  out_0[("bad=bad.jsonl")]']
        assert lines[-2:] == ['  r0["reduce"] --> out_0', '  r1["reduce"] --> out_0']

    def test_a_query_is_no_program(self) -> None:
        lines = cell("\nSELECT name\nFROM users", sql=True, inputs=[USERS, ORDERS])
        assert lines[-4:] == [
            '  query["SELECT name"]',
            "  in_0 --> query",
            "  in_1 --> query",
            "  query --> output",
        ]

    def test_a_query_that_is_compiled(self) -> None:
        plan = Plan("mapreduce", Program("\nSELECT 1"), options={"inputs": [USERS, ORDERS], "sql": True})
        flows = [("map_users", "users_1", "reduce"), ("map_orders", "orders_1", "reduce"), ("reduce", "", "")]
        assert query_diagram(plan, flows).splitlines()[-5:] == [
            '  in_0 --> map_users["map_users"]',
            '  in_1 --> map_orders["map_orders"]',
            "  map_users -- users_1 --> reduce",
            "  map_orders -- orders_1 --> reduce",
            "  reduce --> output",
        ]

    def test_rows_that_every_task_is_given(self) -> None:
        plan = Plan("mapreduce", Program("\nSELECT 1"), options={"inputs": [USERS, ORDERS], "sql": True})
        flows = [("all_users", "users_1", "map_orders"), ("map_orders", "", "")]
        assert query_diagram(plan, flows).splitlines()[-4:] == [
            '  in_0 --> all_users["users, for every task"]',
            '  in_1 --> map_orders["map_orders"]',
            "  all_users -- users_1 --> map_orders",
            "  map_orders --> output",
        ]

    def test_many_inputs_and_stages_stay_a_picture(self) -> None:
        source = MAP + "".join(f"reduce{k or ''} = 1\n" for k in (None, *range(2, 40)))
        inputs = [{"path": "x", "name": f"n{i}"} for i in range(8)]
        assert len(cell(source, inputs=inputs)) < 100


class TestBundle:
    def test_says_options_in_words(self) -> None:
        options = {
            "inputs": [USERS, "b.txt"],
            "outputs": {"bad": {"kind": "path", "target": "bad.jsonl"}},
            "max_bad": 0.01,
            "sample": 0.1,
            "backups": False,
            "overwrite": True,
            "key": ["a", "b"],
            "sort": None,
            "partition_by": [],
        }
        plan = Plan("mapreduce", Program(MAP), Resources(memory=512_000_000), options=options)
        rows = dict(line.split(maxsplit=1) for line in plan_bundle(plan)["text/plain"].splitlines())
        assert {name: rows.get(name) for name in [*options, "memory"]} == {
            "inputs": "users=users.csv, b.txt",
            "outputs": "bad=bad.jsonl",
            "max_bad": "1%",
            "sample": "10%",
            "backups": "no",
            "overwrite": "yes",
            "key": "a, b",
            "sort": None,
            "partition_by": None,
            "memory": "512.0 MB per worker",
        }

    @pytest.mark.parametrize(("most", "text"), [(0, "0 records"), (1000, "1,000 records")])
    def test_a_number_of_bad_records(self, most: int, text: str) -> None:
        assert f"max_bad          {text}\n" in plan_bundle(mapreduce(max_bad=most))["text/plain"]

    def test_a_query_is_shown_in_a_line(self) -> None:
        plan = Plan("mapreduce", Program("\nSELECT name\n  FROM users"), options={"inputs": [USERS], "sql": True})
        text = plan_bundle(plan)["text/plain"]
        assert "query            SELECT name FROM users\n" in text
        assert "functions" not in text

    def test_has_table_picture_text_and_the_plan_itself(self) -> None:
        plan = ps(2, 1, "epoch >= 2")
        bundle = plan_bundle(plan)
        assert f"```mermaid\n{diagram(plan)}\n```" in bundle["text/markdown"]
        assert "| model | ps |" in bundle["text/markdown"]
        assert Plan.from_json(json.dumps(bundle[PLAN])) == plan
        assert plan.digest() in bundle["text/plain"]

    def test_says_only_what_was_asked(self) -> None:
        text = plan_bundle(allreduce(0))["text/plain"]
        assert "as many as the cluster has" in text
        for absent in ("push", "hyperparameters", "servers", "GPUs"):
            assert absent not in text

    def test_a_bar_in_a_value_does_not_split_the_table(self) -> None:
        markdown = plan_bundle(ps(1, 1, "loss < 1 | acc > 2"))["text/markdown"]
        assert "| until | loss < 1 \\| acc > 2 |" in markdown

    def test_a_bundle_is_a_cells_value(self) -> None:
        assert Shown({"text/plain": "x"})._repr_mimebundle_(include=None, exclude=None) == {"text/plain": "x"}
