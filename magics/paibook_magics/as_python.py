"""Cells as plain Python: magics become calls of the API, for a script that runs without a notebook."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from IPython.core.inputtransformer2 import TransformerManager

from paibook.errors import PaibookError, PlanError
from paibook.program import Program
from paibook_magics.cells import MAGICS
from paibook_magics.line_expansion import expanded
from paibook_magics.lines import words
from paibook_magics.plan_source import plan_source

_CELL_MAGIC = re.compile(r"%%(\w+)[ \t]*(.*)(?:\n|$)")
_TIMERS = ("time", "capture")
_SHELLS = ("bash", "sh")
# What only shows something, or was there to set the notebook up.
_LEFT_OUT = (
    "autoreload",
    "conda",
    "config",
    "load_ext",
    "pai_debug",
    "pai_ranks",
    "pai_runs",
    "pai_schedule",
    "pip",
    "reload_ext",
)
_CLUSTER = {
    "": "None",
    "status": "None",
    "start": "_session.cluster.start()",
    "restart": "_session.cluster.restart()",
    "stop": "_session.cluster.close()",
}


@dataclass(frozen=True)
class PythonCell:
    """A cell's code, and the names that it binds."""

    text: str
    names: frozenset[str]


def as_python(source: str, cell_name: str, names: Collection[str]) -> PythonCell:
    """A code cell as Python.

    It needs ``_session``, a ``Session``, ``_show`` for its events, and the modules ``os`` and ``subprocess``.

    Args:
        source: As it stands in the notebook.
        cell_name: What messages and tracebacks call it.
        names: What earlier cells have bound; tells an input variable from a file, and ``$name`` from the shell's.

    Raises:
        PlanError: It has something that only a notebook can do; says what to do.
    """
    match = _CELL_MAGIC.match(source.lstrip("\n"))
    try:
        if match is None:
            return _plain(source, cell_name, names)
        body = source.lstrip("\n")[match.end() :]
        return _magic(match[1], match[2].strip(), body, cell_name, names)
    except SyntaxError as error:
        advice = "; `await` needs a notebook: write run.result()" if "await" in str(error) else ""
        raise PlanError(f"{cell_name}, line {error.lineno}: {error.msg}{advice}") from error
    except PaibookError as error:
        raise PlanError(f"{cell_name}: {error}") from error


def _magic(magic: str, line: str, body: str, cell_name: str, names: Collection[str]) -> PythonCell:
    if magic in MAGICS:
        text, made = plan_source(magic, line, body, cell_name, names)
        return PythonCell(text, made)
    if magic in _TIMERS:
        return as_python(body, cell_name, names)
    if magic in _SHELLS and not line:
        return PythonCell(f'subprocess.run(["{magic}", "-c", {body!r}], check=True)\n', frozenset())
    if magic == "writefile" and len(words(line)) == 1:
        return PythonCell(f'with open({words(line)[0]!r}, "w") as file:\n    file.write({body!r})\n', frozenset())
    raise PlanError(f"%%{magic} {line} has no counterpart in a script; write the cell in Python".replace("  ", " "))


def _plain(source: str, cell_name: str, names: Collection[str]) -> PythonCell:
    text = TransformerManager().transform_cell(source)
    program = Program(text, cell_name)
    bound = frozenset(program.names())
    known = {*names, *bound}
    found = [node for node in ast.walk(program.tree()) if isinstance(node, ast.Call) and _of_shell(node)]
    lines = [line.encode() for line in text.split("\n")]  # syntax trees count columns in bytes
    for node in sorted(found, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        line, end = lines[node.lineno - 1], node.end_col_offset
        lines[node.lineno - 1] = line[: node.col_offset] + _call(node, known).encode() + line[end:]
    made = Program(b"\n".join(lines).decode(), cell_name)
    if any(isinstance(node, ast.Name) and node.id == "get_ipython" for node in ast.walk(made.tree())):
        raise PlanError("get_ipython() needs a notebook; write what it does in Python")
    made.compile()
    return PythonCell(made.source, bound | made.names())


def _of_shell(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "get_ipython()"


def _call(node: ast.Call, names: Collection[str]) -> str:
    """What stands in a script for a call that IPython makes of ``!command`` or ``%magic``."""
    assert isinstance(node.func, ast.Attribute)
    arguments = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    method, texts = node.func.attr, [value for value in arguments if isinstance(value, str)]
    if len(texts) != len(node.args):
        raise PlanError("get_ipython() needs a notebook; write what it does in Python")
    if method == "system":
        return f"subprocess.run({expanded(texts[0], names)}, shell=True)"
    if method == "getoutput":
        return f"subprocess.getoutput({expanded(texts[0], names)}).splitlines()"
    if method != "run_line_magic":
        raise PlanError(f"get_ipython().{method}() needs a notebook; write what it does in Python")
    return _line_magic(texts[0], texts[1], names)


def _line_magic(magic: str, line: str, names: Collection[str]) -> str:
    if magic in _LEFT_OUT:
        return "None"
    simple: dict[str, Callable[[], str]] = {
        "matplotlib": lambda: '__import__("matplotlib").use("Agg")',
        "cd": lambda: f"os.chdir({expanded(line, names)})",
        "time": lambda: TransformerManager().transform_cell(line).rstrip("\n"),
        "pai_cluster": lambda: _cluster(line, names),
    }
    if magic in simple:
        return simple[magic]()
    name, equals, value = line.partition("=")
    if magic in ("env", "set_env") and equals:
        return f"os.environ.update({{{name.strip()!r}: {expanded(value.strip(), names)}}})"
    raise PlanError(f"%{magic} {line} has no counterpart in a script; write it in Python, or leave it out")


def _cluster(line: str, names: Collection[str]) -> str:
    match words(line):
        case ["attach", reference]:
            return f"_session.attach({reference if reference in names else repr(reference)})"
        case ["scale", count] if count.isdecimal():
            return f"_session.cluster.scale({int(count)})"
        case [] | [_] as found if (found or [""])[0] in _CLUSTER:
            return _CLUSTER[(found or [""])[0]]
    raise PlanError(f"%pai_cluster {line}: not understood; `%pai_cluster?` shows what there is")
