"""MapReduce cells in a real kernel: several inputs and outputs, what is shown meanwhile and at the end, resuming."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from paibook_magics.examples import EXAMPLES

if TYPE_CHECKING:
    from conftest import Notebook, Outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WAIT = 60
WORD_COUNT = """
def map(line):
    pai.counter("lines").add(1)
    for word in line.split():
        yield word, 1

def reduce(word, ones):
    yield word, sum(ones)
"""


def html(outcome: Outcome) -> list[str]:
    return [display["text/html"] for display in outcome.displays if "pai-run" in display.get("text/html", "")]


def test_the_examples_of_the_help_run(notebook: Notebook) -> None:
    has_sql = all(importlib.util.find_spec(library) for library in ("duckdb", "sqlglot"))
    for _title, cells in EXAMPLES["pai_mapreduce"]:
        if any("--sql" in cell for cell in cells) and not has_sql:
            continue
        for cell in cells:
            outcome = notebook.run(cell)
            assert outcome.status == "ok", outcome.traceback
    assert notebook.value("sorted(counts)") == "[('be', 2), ('not', 1), ('or', 1), ('to', 2)]"
    assert notebook.value("(totals, strangers)") == (
        "([{'name': 'Ada', 'total': 42}, {'name': 'Alan', 'total': 0}], [{'user': 7}])"
    )
    assert "[(1, 2), (2, 2)]" in outcome.text


def test_outputs_go_where_the_line_says(notebook: Notebook, tmp_path: Path) -> None:
    notebook.run("numbers = range(100)")
    outcome = notebook.run(
        f"""%%pai_mapreduce -i numbers -o {tmp_path}/even.parquet odd={tmp_path}/odd.jsonl seventh=sevens
def map(n):
    yield n % 2, n

def reduce(parity, values):
    for n in values:
        yield pai.output("odd", {{"n": n}}) if parity else {{"n": n}}
        if n % 7 == 0:
            yield pai.output("seventh", n)
"""
    )
    assert outcome.status == "ok", outcome.traceback
    assert f"{tmp_path}/odd.jsonl: 50 records of the output 'odd'\n" in outcome.stdout
    assert "sevens: 15 records of the output 'seventh'\n" in outcome.stdout
    assert notebook.value("sorted(sevens) == list(range(0, 100, 7))") == "True"
    lines = [line for path in (tmp_path / "odd.jsonl").rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert sorted(json.loads(line)["n"] for line in lines) == list(range(1, 100, 2))
    assert notebook.value(f"len(__import__('pandas').read_parquet('{tmp_path}/even.parquet'))") == "50"


class TestShown:
    def test_progress_is_replaced_by_the_summary(self, notebook: Notebook) -> None:
        notebook.run("docs = ['to be', 'or not to be'] * 50")
        slow = WORD_COUNT.replace("    for word", "    import time; time.sleep(0.02)\n    for word")
        outcome = notebook.run("%%pai_mapreduce -i docs -o counts --progress-after 0.1" + slow)
        *panels, last = html(outcome)
        assert any('role="progressbar"' in panel for panel in panels)
        assert "<details><summary>map " in last
        assert "100 records" in last
        assert "lines 100" in last
        assert "&#x27;be&#x27;" in last  # among the largest keys

    def test_text_says_the_same(self, notebook: Notebook) -> None:
        notebook.run("docs = ['to be', 'or not to be'] * 50")
        outcome = notebook.run("%%pai_mapreduce -i docs -o counts" + WORD_COUNT)
        line, counters = outcome.text.splitlines()
        assert line.startswith("map ")
        assert " · 100 records" in line
        assert counters == "counters: lines 100"

    def test_bad_records_are_pointed_at(self, notebook: Notebook) -> None:
        notebook.run("numbers = ['1', 'two', '3']")
        outcome = notebook.run(
            "%%pai_mapreduce -i numbers --max-bad 1 -o total\n"
            "def map(n): yield 0, int(n)\ndef reduce(key, values): yield sum(values)"
        )
        assert outcome.status == "ok", outcome.traceback
        assert notebook.value("total") == "[4]"
        (line,) = [line for line in outcome.text.splitlines() if "bad record" in line]
        assert line.startswith("1 bad record skipped; see ")
        kept = json.loads(Path(line.rpartition(" see ")[2]).read_text())
        assert kept["record"] == "two"

    def test_a_run_that_fails_keeps_its_panel(self, notebook: Notebook) -> None:
        notebook.run("numbers = list(range(40))")
        outcome = notebook.run(
            "%%pai_mapreduce -i numbers --progress-after 0.1\nimport time\n"
            "def map(n):\n    time.sleep(0.02)\n    yield 0, 1 / (n - 39)\n"
            "def reduce(key, values): yield sum(values)"
        )
        assert outcome.ename == "UserCodeError"
        assert "failed after" in html(outcome)[-1]

    def test_show_tells_the_summary_again(self, notebook: Notebook) -> None:
        notebook.run("docs = ['to be']")
        notebook.run("%%pai_mapreduce -i docs -o counts" + WORD_COUNT)
        outcome = notebook.run("%pai_runs show {get_ipython().paibook.session.runs[-1].id}")
        assert "counters: lines 1\n" in outcome.stdout
        assert "stages:\nstage " in outcome.stdout
        assert "largest keys:\n" in outcome.stdout


def test_a_run_is_resumed_in_a_new_notebook(fresh_notebook: Callable[..., Notebook], tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text("to be\n" * 10)
    mapped = tmp_path / "mapped"
    mapped.mkdir()
    cell = f"""%%pai_mapreduce -i {tmp_path}/*.txt --format document -o counts
import pathlib, time
def map(document):
    started = len(list(pathlib.Path({str(mapped)!r}).iterdir()))
    pathlib.Path({str(mapped)!r}, f"{{time.time_ns()}}").touch()
    if started >= 3 and not pathlib.Path({str(tmp_path / "go")!r}).exists():
        time.sleep(600)
    for word in document["text"].split():
        yield word, 1

def reduce(word, ones):
    yield word, sum(ones)
"""
    first = fresh_notebook()
    first.client.execute(cell)
    _until(lambda: len(list(mapped.iterdir())) >= 4)
    time.sleep(1)  # what has finished is noted
    os.kill(first.pid, signal.SIGKILL)
    first.manager.provisioner.process.wait()  # type: ignore[union-attr]
    (tmp_path / "go").touch()
    second = fresh_notebook()
    run_id = second.value("[r.id for r in get_ipython().paibook.session.history][0]").strip("'")
    outcome = second.run(f"%pai_runs resume {run_id}")
    assert outcome.status == "ok", outcome.traceback
    assert second.value("sorted(counts)") == "[('be', 60), ('to', 60)]"
    assert "counts: 2 records" in outcome.stdout
    again = second.run(f"%pai_runs resume {run_id}")
    assert again.ename == "PlanError"
    assert second.run("%pai_runs resume none").ename == "PlanError"


def _until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class TestSql:
    @pytest.fixture(autouse=True)
    def libraries(self) -> None:
        for library in ("duckdb", "sqlglot"):
            pytest.importorskip(library)

    SALES = "import pandas as pd\nsales = pd.DataFrame({'shop': ['a', 'b', 'a', None], 'price': [1.5, 2, 3, 4]})"
    QUERY = "SELECT shop, sum(price) AS total, count(*) AS n\nFROM sales\nGROUP BY shop\nORDER BY shop"

    def test_a_query_gives_a_data_frame(self, notebook: Notebook) -> None:
        notebook.run(self.SALES)
        outcome = notebook.run(f"%%pai_mapreduce --sql -n 2 -i sales -o totals\n{self.QUERY}")
        assert outcome.status == "ok", outcome.traceback
        assert outcome.stdout.startswith("totals: 3 records")
        assert notebook.value("totals.fillna('-').values.tolist()") == "[['a', 4.5, 2], ['b', 2.0, 1], ['-', 4.0, 1]]"
        shown = notebook.run("%%pai_mapreduce --sql -i sales\nFROM sales SELECT max(price) AS dearest")
        assert "dearest" in shown.text

    def test_a_mistake_is_shown_at_its_line(self, notebook: Notebook) -> None:
        notebook.run(self.SALES)
        outcome = notebook.run("%%pai_mapreduce --sql -i sales\nSELECT shop,\n  prise\nFROM sales")
        assert outcome.status == "error"
        assert re.search(
            r'Cell In\[\d+\], line 3: Binder Error: Referenced column "prise" not found', outcome.traceback
        )
        assert "paibook/runtimes" not in outcome.traceback

    def test_why_it_runs_in_one_task(self, notebook: Notebook) -> None:
        notebook.run(self.SALES)
        query = "SELECT shop FROM sales WHERE price = (SELECT max(price) FROM sales)"
        outcome = notebook.run(f"%%pai_mapreduce --sql -i sales --as list\n{query}")
        assert "note: the query runs in one task, since it has a query inside of an expression" in outcome.stdout
        assert "[{'shop': None}]" in outcome.text

    def test_a_dry_run_shows_the_program(self, notebook: Notebook) -> None:
        notebook.run(self.SALES)
        outcome = notebook.run(f"%%pai_mapreduce --sql -i sales --dry-run\n{self.QUERY}")
        (bundle,) = outcome.displays
        assert "map_sales -- sales_1 --> reduce\n" in bundle["text/markdown"]
        assert "def reduce2(**relations: pa.Table):" in bundle["text/plain"]
