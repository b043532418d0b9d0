"""A plan shown before it runs."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook_magics.picture import Shown, diagram, plan_bundle


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

    @pytest.mark.parametrize(("size", "links"), [(1, 0), (2, 1), (3, 3), (8, 8)])
    def test_allreduce_has_every_rank_in_a_ring(self, size: int, links: int) -> None:
        lines = diagram(allreduce(size)).splitlines()
        for rank in range(size):
            assert f'  r{rank}(["rank {rank}"])' in lines
        assert sum("<-->" in line for line in lines) == links

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


class TestBundle:
    def test_has_table_picture_text_and_the_plan_itself(self) -> None:
        plan = ps(2, 1, "epoch >= 2")
        bundle = plan_bundle(plan)
        assert f"```mermaid\n{diagram(plan)}\n```" in bundle["text/markdown"]
        assert "| model | ps |" in bundle["text/markdown"]
        assert Plan.from_json(json.dumps(bundle["application/json"])) == plan
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
