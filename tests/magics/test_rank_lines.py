"""Looking into the ranks of a notebook, with a real kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Notebook


def test_ranks_before_and_after_the_first_cell(notebook: Notebook) -> None:
    assert "no ranks yet" in notebook.run("%pai_ranks").stdout
    refused = notebook.run("%pai_debug 0 -c w")
    assert refused.ename == "PlanError"
    assert "the first %%pai_allreduce" in refused.evalue
    notebook.run("%%pai_allreduce -n 2\nimport numpy\nw = numpy.zeros((3, 4 + rank))\nnames = ['a', 'b']")
    shown = notebook.run("%pai_ranks").text
    assert "idle" in shown
    assert "MB" in shown
    assert "cpu" in shown
    variables = notebook.run("%pai_ranks vars").text
    assert "float64[3, 4], 96 B" in variables
    assert "float64[3, 5], 120 B" in variables
    assert "list[2]" in variables
    assert "comm" not in variables


def test_the_frame_that_raised_on_a_rank_can_be_looked_into(notebook: Notebook) -> None:
    failed = notebook.run(
        "%%pai_allreduce -n 2\n"
        "def half(number):\n"
        "    rest = number % 2\n"
        "    assert not rest, 'odd'\n"
        "    return number // 2\n"
        "made = [half(n) for n in (4, 6 + rank)]"
    )
    assert failed.ename == "UserCodeError"
    looked = notebook.run('%pai_debug 1 -c "p rest, number" "w" "up" "p rank" "l"').stdout
    assert "(1, 7)" in looked
    assert "assert not rest, 'odd'" in looked
    assert "paibook" not in looked  # the frames that called the cell are not the user's
    assert "made = [half(n) for n in (4, 6 + rank)]" in looked
    again = notebook.run('%pai_debug 1 -c "p n"').stdout  # still one up
    assert again.strip() == "7"
    assert "the last cell did not fail on rank 0" in notebook.run("%pai_debug 0 -c w").stdout
    assert "cannot go on" in notebook.run("%pai_debug 1 -c next").stdout
    assert notebook.run('%pai_debug 1 -c "p n;;p rank" "debug 1+1" "p print(5)"').stdout.splitlines() == [
        "7",
        "1",
        "the cell has ended: 'debug' cannot go on with it",
        "5",
        "None",
    ]
    wrong = notebook.run('%pai_debug 1 -c "p nothing"')
    assert (wrong.status, "NameError" in wrong.stdout) == ("ok", True)


def test_a_prompt_needs_somebody_who_types(notebook: Notebook) -> None:
    notebook.run("%%pai_allreduce -n 2\n1 / (1 - rank)")
    reply = notebook.client.execute_interactive("%pai_debug 1", allow_stdin=False, timeout=60)["content"]
    assert reply["status"] == "error"
    assert "write the commands" in reply["evalue"]


def test_the_prompt(notebook: Notebook) -> None:
    notebook.run("%%pai_allreduce -n 2\nsecret = 40 + rank\n1 / (1 - rank)")
    typed = iter(["p secret", "", "q"])
    asked: list[str] = []
    printed: list[str] = []

    def answer(message: dict[str, Any]) -> None:
        asked.append(message["content"]["prompt"])
        notebook.client.input(next(typed))

    def show(message: dict[str, Any]) -> None:
        printed.append(message["content"].get("text", ""))

    reply = notebook.client.execute_interactive(
        "%pai_debug 1", allow_stdin=True, stdin_hook=answer, output_hook=show, timeout=60
    )
    assert reply["content"]["status"] == "ok"
    assert asked == ["rank 1 (pdb) "] * 3
    assert "ZeroDivisionError" not in "".join(printed)
    assert "41\n" in "".join(printed)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%pai_ranks vras", "not understood"),
        ("%pai_debug", "not understood"),
        ("%pai_debug one", "not understood"),
        ("%pai_debug 7 -c w", "there is no rank 7; there are 0, 1"),
    ],
)
def test_what_is_not_understood(notebook: Notebook, line: str, said: str) -> None:
    outcome = notebook.run(line)
    assert outcome.ename == "PlanError"
    assert said in outcome.evalue


def completions(notebook: Notebook, code: str) -> list[str]:
    reply = notebook.client.complete(code, len(code), reply=True, timeout=60)
    return list(reply["content"]["matches"])


def test_tab_knows_the_names_on_the_ranks(notebook: Notebook) -> None:
    notebook.run("%%pai_allreduce -n 2\nimport numpy as np\nlong_name_on_ranks = [1]")
    line = "%%pai_allreduce -n 2\n"
    assert completions(notebook, line + "long_name_o") == ["long_name_on_ranks"]
    assert "np.zeros_like" in completions(notebook, line + "x = np.zeros_l")
    assert completions(notebook, line + "comm.Allr") == ["comm.Allreduce"]
    assert "long_name_on_ranks.append" in completions(notebook, line + "f(long_name_on_ranks.app")
    assert completions(notebook, "long_name_o") == []
    assert "long_name_on_ranks[0].staticmethod" not in completions(notebook, line + "long_name_on_ranks[0].st")
    assert notebook.run("%%pai_allreduce -n 2\ncomm.allreduce(1)").status == "ok"  # and it has connected nothing


def tooltip(notebook: Notebook, code: str, detail: int = 0) -> str:
    reply = notebook.client.inspect(code, len(code), detail, reply=True, timeout=60)["content"]
    return str(reply["data"]["text/plain"]) if reply["found"] else ""


def test_shift_tab_knows_the_names_on_the_ranks(notebook: Notebook) -> None:
    notebook.run(
        "%%pai_allreduce -n 2\nimport numpy as np\nmatrix = np.ones((2, 3), 'f4')\n"
        "def third(number: int) -> int:\n    'A third of a number.'\n    return number // 3"
    )
    line = '%%pai_allreduce -n 2 --hp text="a\n'
    assert "third(number: int) -> int" in tooltip(notebook, line + "x = third(")
    assert "A third of a number." in tooltip(notebook, line + "third")
    assert "return number // 3" not in tooltip(notebook, line + "third")
    assert "return number // 3" in tooltip(notebook, line + "third", 1)
    assert "float32[2, 3]" in tooltip(notebook, line + "matrix")
    assert "Allreduce(sendbuf" in tooltip(notebook, line + "comm.Allreduce(")
    assert tooltip(notebook, "third") == ""
    assert tooltip(notebook, line + "nowhere") == ""
    notebook.run("only_here = 'in the notebook'")
    assert "in the notebook" in tooltip(notebook, line + "only_here")
    assert notebook.run("%%pai_allreduce -n 2\ncomm.allreduce(1)").status == "ok"  # and it has connected nothing


def test_a_question_mark_is_answered_on_the_ranks(notebook: Notebook) -> None:
    notebook.run("%%pai_allreduce -n 2\ndef half(number: int) -> int:\n    'Half of a number.'\n    return number // 2")
    shown = notebook.run("%%pai_allreduce -n 2 -t 1\nhalf?").stdout
    assert "[rank 1]" in shown
    assert "half(number: int) -> int" in shown
    assert "Half of a number." in shown


def test_a_failure_is_forgotten_when_the_next_cell_begins(notebook: Notebook) -> None:
    notebook.run("%%pai_allreduce -n 2\n1 / 0")
    notebook.run("%%pai_allreduce -n 2\npass")
    assert "the last cell did not fail on rank 1" in notebook.run("%pai_debug 1 -c w").stdout
    failed = notebook.run(
        "%%pai_ps -n 1 --servers 1\ndef train(ps):\n    lost = ps.rank + 5\n    raise ValueError(lost)"
    )
    assert failed.status == "error"
    assert "5" in notebook.run('%pai_debug 0 -c "p lost"').stdout
