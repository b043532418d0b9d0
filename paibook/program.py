"""The user's program: a cell's source, checked before it runs and traced back to the cell's own lines."""

from __future__ import annotations

import ast
import linecache
import re
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType, TracebackType
from typing import Any

from paibook.errors import PaibookError, ProgramError, UserCodeError

# CPython 3.11 counts the depth of syntax trees in one place for all threads, and fails when two build trees at once
# (gh-106905: "AST constructor recursion depth mismatch"); inline ranks are threads.
_PARSES, _PARSE_SECONDS = 20, 0.005
_compiling = threading.Lock()


@dataclass(frozen=True)
class Program:
    """Python source as it stands in a cell.

    Attributes:
        source: Plain Python (IPython syntax already transformed). Its line k is the cell's line k: the magic's own
            line is kept as a blank first line.
        filename: What tracebacks call it, such as ``"Cell In[3]"``.
    """

    source: str
    filename: str = "<cell>"

    def tree(self) -> ast.Module:
        """The syntax tree.

        Raises:
            SyntaxError: As Python raises it, pointing into the cell.
        """
        with _compiling:
            for _ in range(_PARSES):
                try:
                    return ast.parse(self.source, filename=self.filename)
                except SystemError:
                    # Python 3.11 counts the depth of all threads' trees in one place (cpython issue 106905), and
                    # another thread, which formats a traceback perhaps, parses at the same time.
                    time.sleep(_PARSE_SECONDS)
            return ast.parse(self.source, filename=self.filename)

    def compile(self) -> None:
        """Find what only compiling finds, such as ``return`` outside a function.

        Raises:
            SyntaxError: As Python raises it.
        """
        self._compile(self.tree())

    def functions(self) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
        """Functions defined at the top level of the cell, by name."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return {node.name: node for node in self.tree().body if isinstance(node, kinds)}

    def check(
        self, magic: str, required: Mapping[str, tuple[str, ...]], optional: Mapping[str, tuple[str, ...]]
    ) -> None:
        """Refuse a cell that lacks a function its programming model needs, or has one of the wrong shape.

        Args:
            magic: Name shown in the message, such as ``"%%pai_mapreduce"``.
            required: Function name to the names of its positional parameters.
            optional: The same for functions the cell may define.

        Raises:
            ProgramError: Naming what is missing and what the cell defines.
            SyntaxError: The cell is not Python.
        """
        functions = self.functions()
        defined = self.names()
        for name, parameters in required.items():
            if name not in defined:
                listed = ", ".join(sorted(defined)) or "nothing"
                signature = f"{name}({', '.join(parameters)})"
                raise ProgramError(
                    f"{magic} needs a function named {name!r}, as in `def {signature}:`; the cell defines: {listed}"
                )
        for name, parameters in {**required, **optional}.items():
            if name in functions:
                _check_signature(magic, functions[name], parameters, self.filename)

    def names(self) -> set[str]:
        """Names the cell binds at its top level: functions, classes, assignments and imports."""
        bound: set[str] = set()
        for node in self.tree().body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                bound.add(node.name)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                bound.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
            else:
                bound.update(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        return bound

    def definitions(self) -> Program:
        """The program without its actions: imports, functions, classes and constant assignments only.

        Parameter servers load this, so that a cell's top-level work runs on the workers alone.
        """
        kept = [node for node in self.tree().body if _is_definition(node)]
        lines = [line.encode() for line in _lines(self.source)]  # syntax trees count columns in bytes
        left = [b""] * len(lines)
        for node in kept:
            first, last = _first_line(node), node.end_lineno or node.lineno
            for i in range(first, last + 1):
                # Line by line and column by column, since an action may share a line with a definition.
                start = node.col_offset if i == first == node.lineno else 0
                piece = lines[i - 1][start : node.end_col_offset if i == last else None]
                left[i - 1] += b"; " + piece if left[i - 1] else piece
        return Program("\n".join(line.decode() for line in left), self.filename)

    def execute(self, namespace: dict[str, Any]) -> Any:
        """Run the program in ``namespace``; returns the value of its last expression, or None.

        Tracebacks through the program show the cell's lines, because its source is registered with linecache.
        """
        self.register()
        tree = self.tree()
        last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        body = tree.body[:-1] if last is not None else tree.body
        exec(self._compile(ast.Module(body, [])), namespace)
        if last is None:
            return None
        value = eval(self._compile(ast.Expression(last.value)), namespace)
        return None if self._ends_quietly(last) else value

    def _ends_quietly(self, last: ast.Expr) -> bool:
        line = _lines(self.source)[(last.end_lineno or last.lineno) - 1]
        return line.encode()[last.end_col_offset :].lstrip().startswith(b";")

    def register(self) -> None:
        """Make the source known to tracebacks, ``inspect`` and the debugger."""
        linecache.cache[self.filename] = (
            len(self.source),
            None,
            [line + "\n" for line in _lines(self.source)],
            self.filename,
        )

    def _compile(self, tree: ast.Module | ast.Expression) -> CodeType:
        mode = "eval" if isinstance(tree, ast.Expression) else "exec"
        with _compiling:
            return compile(tree, self.filename, mode, dont_inherit=True)


def capture_error(error: BaseException, where: str) -> UserCodeError:
    """Turn an exception from user code into one that travels, its traceback starting at the user's line.

    Args:
        error: Just caught, with its traceback.
        where: For example ``"rank 1"``.
    """
    text = format_user_traceback(type(error), error, error.__traceback__)
    return UserCodeError(where, type(error).__name__, error_text(error), text, error)


def error_text(error: BaseException) -> str:
    """What an exception says; nothing where an exception class of the cell's fails in its own ``__str__``."""
    try:
        return str(error)
    except Exception:
        return ""


def format_user_traceback(kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> str:
    """Format a traceback without the leading frames of paibook itself; under errors of its own, nor trailing ones."""
    first = of_user_code(tb)
    # When nothing but our own frames is left, the whole of it is the most useful thing to show.
    report = traceback.TracebackException(kind, error, first if first is not None else tb)
    if first is not None and isinstance(error, PaibookError):
        # An error we raise on purpose is about the line that called us, not about our own lines below it.
        del report.stack[_users_depth(first) :]
    with _compiling:  # formatting parses the lines it shows
        return "".join(report.format())


def of_user_code(tb: TracebackType | None) -> TracebackType | None:
    """A traceback without its leading frames of paibook itself; None where there are no others."""
    while tb is not None and _is_ours(tb):
        tb = tb.tb_next
    return tb


def _users_depth(tb: TracebackType) -> int:
    """How many frames there are down to the last that is not ours."""
    frames: list[TracebackType] = []
    walk: TracebackType | None = tb
    while walk is not None:
        frames.append(walk)
        walk = walk.tb_next
    return max(depth for depth, frame in enumerate(frames, 1) if not _is_ours(frame))


def _is_ours(tb: TracebackType) -> bool:
    module = tb.tb_frame.f_globals.get("__name__", "")
    # A cell's own globals may be a rank's namespace, so go by the file, not by the module alone.
    return module.split(".")[0] == "paibook" and not tb.tb_frame.f_code.co_filename.startswith(("<", "Cell "))


def _lines(source: str) -> list[str]:
    # As Python counts them: ``str.splitlines`` also splits at form feeds and Unicode's line separators.
    return re.split(r"\r\n|\r|\n", source)


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])


def _is_definition(node: ast.stmt) -> bool:
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return True
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        try:
            ast.literal_eval(node.value)
        except (ValueError, TypeError):  # TypeError: a list as a key
            return False
        return True
    return False


def _check_signature(
    magic: str, node: ast.FunctionDef | ast.AsyncFunctionDef, parameters: tuple[str, ...], filename: str
) -> None:
    arguments = node.args
    positional = len(arguments.posonlyargs) + len(arguments.args)
    least = positional - len(arguments.defaults)
    most = positional if arguments.vararg is None else max(positional, len(parameters))
    needs_keywords = any(default is None for default in arguments.kw_defaults)
    if isinstance(node, ast.AsyncFunctionDef):
        raise ProgramError(
            f"{magic}: {node.name!r} in {filename}, line {node.lineno} must be a plain `def`, not `async def`"
        )
    if not least <= len(parameters) <= most or needs_keywords:
        expected = f"{node.name}({', '.join(parameters)})"
        raise ProgramError(
            f"{magic} calls {expected}; the cell defines {node.name}({ast.unparse(arguments)}) "
            f"in {filename}, line {node.lineno}"
        )
