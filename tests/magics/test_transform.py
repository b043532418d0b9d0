"""Cells that become awaited calls, and cells that are left alone."""

from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from paibook_magics.cells import MAGICS
from paibook_magics.transform import AwaitPaiCells

# What the transformer asks of a shell; a whole one would be IPython's singleton.
NOTEBOOK: Any = SimpleNamespace(autoawait=True, kernel=object())


def transformed(cell: str, transformer: AwaitPaiCells | None = None) -> str:
    return "".join((transformer or AwaitPaiCells(NOTEBOOK))(cell.splitlines(keepends=True)))


def call(source: str) -> list[str]:
    """The arguments of the awaited call."""
    (statement,) = ast.parse(source, mode="exec").body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Await)
    assert isinstance(statement.value.value, ast.Call)
    assert ast.unparse(statement.value.value.func) == "get_ipython().paibook.run_cell"
    return [ast.literal_eval(argument) for argument in statement.value.value.args]


@pytest.mark.parametrize("magic", MAGICS)
def test_a_cell_becomes_an_awaited_call(magic: str) -> None:
    assert call(transformed(f"%%{magic} -n 2 --name 'a \"b\"'\n\nx = 1\n")) == [
        magic,
        "-n 2 --name 'a \"b\"'",
        "\nx = 1\n",
    ]


def test_a_cell_without_options_or_body() -> None:
    assert call(transformed("%%pai_ps")) == ["pai_ps", "", ""]


@given(st.text(st.characters(exclude_characters="\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", exclude_categories=["Cs"])))
def test_whatever_is_on_the_line_arrives(line: str) -> None:
    if not line.rstrip().endswith("?"):
        assert call(transformed(f"%%pai_ps {line}\nx")) == ["pai_ps", line.strip(), "x"]


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "x = 1\n",
        "%%time\n%%pai_ps\n",
        "%%pai_psx -n 2\n",
        "%%pai_other\n",
        "%pai_cluster\n",
        "# %%pai_ps\n",
        " %%pai_ps\n",
        "%%pai_ps?",
        "%%pai_ps -n 2?",
        "%%pai_ps ?",
        "%%pai_ps??",
    ],
)
def test_other_cells_pass_unchanged(cell: str) -> None:
    assert transformed(cell) == cell


@pytest.mark.parametrize(
    "shell",
    [SimpleNamespace(autoawait=False, kernel=object()), SimpleNamespace(autoawait=True)],
    ids=["off", "terminal"],
)
def test_where_nothing_can_be_awaited_the_cell_stays_a_synchronous_call(shell: Any) -> None:
    assert transformed("%%pai_ps -n 2\nx = 1\n", AwaitPaiCells(shell)) == "%%pai_ps -n 2\nx = 1\n"


def test_inside_a_running_cell_nothing_is_awaited() -> None:
    transformer = AwaitPaiCells(NOTEBOOK)
    transformer.begin()
    assert transformed("%%pai_ps\nx", transformer) == "%%pai_ps\nx"
    transformer.end()
    assert transformed("%%pai_ps\nx", transformer).startswith("await ")


@pytest.mark.parametrize("body", ["x = = 1\n", "def f(\n", "  x\n y\n"])
def test_a_body_that_is_no_python_takes_the_calls_place(body: str) -> None:
    assert transformed(f"%%pai_ps\n{body}") == f"\n{body}"


@pytest.mark.parametrize("line", ["--sql -i users", "-i users --sql", "-i 'a b' --sql"])
def test_sql_is_not_python(line: str) -> None:
    query = "SELECT * FROM users\nWHERE x = '?'\n"
    assert call(transformed(f"%%pai_mapreduce {line}\n{query}")) == ["pai_mapreduce", line, query]


@pytest.mark.parametrize("first", ["%%pai_mapreduce -i users", "%%pai_ps --sql", "%%pai_mapreduce --name '--sql x'"])
def test_a_query_elsewhere_is_a_syntax_error(first: str) -> None:
    assert transformed(f"{first}\nSELECT * FROM users\n") == "\nSELECT * FROM users\n"


@pytest.mark.parametrize("body", ["%time x = 1\n", "!ls\n", "await f()\n", "x = !ls\n", "f?\n", "", "# nothing\n"])
def test_what_ipython_understands_is_no_syntax_error(body: str) -> None:
    assert call(transformed(f"%%pai_ps\n{body}"))[2] == body


def test_ipython_leaves_the_call_as_it_is() -> None:
    manager = TransformerManager()
    manager.cleanup_transforms.append(AwaitPaiCells(NOTEBOOK))
    assert call(manager.transform_cell("%%pai_ps -n 2\n%time x = 1\n")) == ["pai_ps", "-n 2", "%time x = 1\n"]


def search_call(source: str) -> list[str]:
    """The arguments of an awaited search."""
    (statement,) = ast.parse(source).body
    assert "get_ipython().paibook.search.run" in ast.unparse(statement)
    return [ast.literal_eval(node) for node in ast.walk(statement) if isinstance(node, ast.Constant)]


def test_a_search_becomes_an_awaited_call() -> None:
    cell = "%%pai_search --trials 3\n%%pai_allreduce -n 2\nx = 1\n"
    assert search_call(transformed(cell)) == ["--trials 3", "%%pai_allreduce -n 2\nx = 1\n"]
    assert search_call(transformed("%pai_search --cell 3")) == ["--cell 3", ""]


@pytest.mark.parametrize(
    "cell", ["%%pai_search?", "%pai_search?", "%pai_search\nx = 1\n", "%%pai_searching\n", "x = 1\n%pai_search\n"]
)
def test_what_is_no_search_passes_unchanged(cell: str) -> None:
    assert transformed(cell) == cell


def test_a_search_over_what_is_no_python_shows_the_syntax_error_at_its_line() -> None:
    assert transformed("%%pai_search\n%%pai_ps\nx = = 1\n") == "\n\nx = = 1\n"


def test_a_search_that_cannot_be_awaited_stays_a_synchronous_call() -> None:
    cell = "%%pai_search\n%%pai_ps\nx = 1\n"
    assert transformed(cell, AwaitPaiCells(SimpleNamespace(autoawait=True))) == cell


def test_following_a_run_alone_in_its_cell_becomes_an_awaited_call() -> None:
    assert transformed("%pai_runs attach $job\n") == "await get_ipython().paibook.attach('$job')\n"
    for cell in ("%pai_runs attach a\n1 + 1\n", "%pai_runs attach\n", "%pai_runs attach a b\n", "%pai_runs show a\n"):
        assert transformed(cell) == cell
