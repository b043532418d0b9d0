"""A cell's source: checked before it runs, executed, and traced back to its own lines."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.errors import PlanError, ProgramError
from paibook.program import Program, capture_error, format_user_traceback

MAGIC = "%%pai_mapreduce"
REQUIRED = {"map": ("record",), "reduce": ("key", "values")}
OPTIONAL = {"combine": ("key", "values")}

STATEMENTS = [
    "import math",
    "from os import path",
    "x = 1",
    "y: int = 2",
    "names = ['a',\n  'b']",
    "text = '''one\n\n  two'''",
    "def f(a, b=1):\n    return a + b\n",
    "@staticmethod\ndef g():\n    pass",
    "class C:\n    z = 3\n\n    def m(self):\n        return 1",
    "print('acting')",
    "for i in range(2):\n    pass",
    "w = open",
    "# a comment",
    "",
    "acting = len('x')",
    "v = 'caf\u00e9'; import json",
    "\u00e9 = 1; print('acting'); import re",
    "k = 1; m = [1,\n2]; n = 3",
    "sep = '\u2028\x0c'",
]


def check(source: str) -> None:
    Program("\n" + source, "Cell In[3]").check(MAGIC, REQUIRED, OPTIONAL)


def raised(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def user_traceback(error: BaseException) -> str:
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_globals["__name__"] == __name__:  # where the test called from
        tb = tb.tb_next
    return format_user_traceback(type(error), error, tb)


class TestCheck:
    @pytest.mark.parametrize(
        "source",
        [
            "def map(record): yield 1, 1\ndef reduce(key, values): yield 1",
            "def map(record, extra=1): yield 1, 1\ndef reduce(*args): yield 1",
            "def map(record, /, *, extra=1): yield 1, 1\ndef reduce(key, *values): yield 1",
            "from mine import map\nreduce = lambda key, values: [1]",
            "import mine as map\nfor reduce in (): pass",
        ],
    )
    def test_accepts_what_can_be_called(self, source: str) -> None:
        check(source)

    def test_a_missing_function_is_named_with_what_the_cell_defines(self) -> None:
        with pytest.raises(ProgramError) as caught:
            check("import numpy as np\nx = 1\ndef map(record): pass")
        assert str(caught.value) == (
            "%%pai_mapreduce needs a function named 'reduce', as in `def reduce(key, values):`; "
            "the cell defines: map, np, x"
        )

    def test_an_empty_cell_defines_nothing(self) -> None:
        with pytest.raises(ProgramError, match="the cell defines: nothing"):
            check("")

    def test_a_function_inside_another_does_not_count(self) -> None:
        with pytest.raises(ProgramError, match="needs a function named 'map'"):
            check("def outer():\n    def map(record): pass\ndef reduce(key, values): pass")

    @pytest.mark.parametrize(
        "signature", ["map()", "map(a, b)", "map(*, record)", "map(record, *, needed)", "map(a, b, *rest)"]
    )
    def test_a_wrong_signature_is_shown_with_its_line(self, signature: str) -> None:
        with pytest.raises(ProgramError) as caught:
            check(f"def reduce(key, values): pass\ndef {signature}: pass")
        assert "%%pai_mapreduce calls map(record); the cell defines" in str(caught.value)
        assert signature in str(caught.value)
        assert "in Cell In[3], line 3" in str(caught.value)

    def test_an_optional_function_is_checked_when_it_is_there(self) -> None:
        with pytest.raises(ProgramError, match=r"combine\(key, values\); the cell defines combine\(pairs\)"):
            check("def map(record): pass\ndef reduce(key, values): pass\ndef combine(pairs): pass")

    def test_async_functions_are_refused(self) -> None:
        with pytest.raises(ProgramError, match=r"'map' in Cell In\[3\], line 2 must be a plain `def`"):
            check("async def map(record): pass\ndef reduce(key, values): pass")

    def test_a_syntax_error_points_into_the_cell(self) -> None:
        with pytest.raises(SyntaxError) as caught:
            check("def map(record)\n    pass")
        assert (caught.value.filename, caught.value.lineno) == ("Cell In[3]", 2)

    @given(st.integers(0, 5), st.integers(0, 5), st.booleans(), st.integers(0, 4))
    def test_the_signature_rule_is_pythons_own(self, plain: int, defaults: int, rest: bool, passed: int) -> None:
        arguments = [f"a{i}" for i in range(plain)] + [f"d{i}=0" for i in range(defaults)] + ["*rest"] * rest
        source = f"def f({', '.join(arguments)}): pass"
        wanted = tuple(f"p{i}" for i in range(passed))
        namespace: dict[str, Any] = {}
        exec(source, namespace)
        try:
            namespace["f"](*wanted)
        except TypeError:
            with pytest.raises(ProgramError):
                Program(source).check("%%m", {"f": wanted}, {})
        else:
            Program(source).check("%%m", {"f": wanted}, {})


class TestDefinitions:
    def test_keeps_definitions_and_drops_actions(self) -> None:
        source = "import math\nprint('no')\nx = 3\ny = math.sqrt(x)\ndef f():\n    return x\nfor i in (): pass\n"
        kept = Program(source).definitions()
        assert kept.names() == {"math", "x", "f"}

    def test_keeps_decorators(self) -> None:
        kept = Program("import functools\n\n@functools.cache\ndef f():\n    return 1").definitions()
        namespace: dict[str, Any] = {}
        kept.execute(namespace)
        assert namespace["f"].cache_info().hits == 0

    def test_drops_an_action_that_shares_a_line_with_a_definition(self) -> None:
        namespace: dict[str, Any] = {"acted": []}
        Program("import math; acted.append(1); x = 2; acted.append(\n2); y = 3").definitions().execute(namespace)
        assert namespace["acted"] == []
        assert (namespace["x"], namespace["y"], namespace["math"].pi > 3) == (2, 3, True)

    def test_an_assignment_that_python_cannot_evaluate_is_no_constant(self) -> None:
        assert Program("x = {[1]: 2}\ny = 1").definitions().names() == {"y"}

    @given(st.lists(st.sampled_from(STATEMENTS), max_size=8))
    def test_what_is_kept_stands_where_it_stood(self, statements: list[str]) -> None:
        program = Program("\n" + "\n".join(statements), "Cell In[1]")
        kept = program.definitions()
        where = {(type(n).__name__, n.lineno, n.end_lineno) for n in program.tree().body}
        assert {(type(n).__name__, n.lineno, n.end_lineno) for n in kept.tree().body} <= where
        assert kept.definitions() == kept
        assert "acting" not in "".join(line for line in kept.source.splitlines() if "print" in line)
        assert set(kept.functions()) == set(program.functions())
        assert kept.filename == "Cell In[1]"


class TestExecute:
    @pytest.mark.parametrize(
        ("source", "value"),
        [
            ("1 + 1", 2),
            ("x = 3\nx * 2", 6),
            ("x = 3", None),
            ("1 + 1;", None),
            ("(1 +\n 1);", None),
            ("1 + 1 ;  \n\n", None),
            ("1 + 1;  # quiet", None),
            ("1 + 1  # not quiet;", 2),
            ("1; 2", 2),
            ("'a;'", "a;"),
            ("", None),
            ("# nothing", None),
            ("if True:\n    7", None),
        ],
    )
    def test_gives_the_last_expression_unless_a_semicolon_ends_it(self, source: str, value: Any) -> None:
        assert Program(source).execute({}) == value

    def test_runs_in_the_namespace(self) -> None:
        namespace = {"x": 1}
        Program("x += 1\ny = [x for _ in range(2)]").execute(namespace)
        assert (namespace["x"], namespace["y"]) == (2, [2, 2])

    def test_an_error_shows_the_cells_line(self) -> None:
        error = raised(lambda: Program("\n\nx = 1\nx / 0  # here\n", "Cell In[8]").execute({}))
        shown = user_traceback(error)
        assert 'File "Cell In[8]", line 4' in shown
        assert "x / 0  # here" in shown

    @pytest.mark.parametrize("odd", ["\x0c", "\u2028", "\x1c", "\x85"])
    def test_only_line_ends_count_as_lines(self, odd: str) -> None:
        source = f"a = 'b'  # {odd} c\nraise ValueError('here')\n"
        shown = user_traceback(raised(lambda: Program(source, f"<odd {ord(odd)}>").execute({})))
        assert "    raise ValueError('here')\n" in shown

    def test_threads_may_execute_at_once(self) -> None:
        programs = [Program("\n".join(f"def f{i}_{k}(): return {i}" for k in range(200)) + f"\n{i}") for i in range(8)]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda program: program.execute({}), programs)) == list(range(8))

    def test_the_future_statements_of_paibook_do_not_leak_in(self) -> None:
        assert Program("def f(x: int): pass\nf.__annotations__").execute({}) == {"x": int}


class TestTracebacks:
    def test_drops_the_frames_above_the_users(self) -> None:
        error = raised(lambda: Program("def f():\n    raise KeyError('k')\nf()", "Cell In[2]").execute({}))
        whole = "".join(traceback.format_exception(error))
        shown = user_traceback(error)
        assert "program.py" in whole
        assert "program.py" not in shown
        assert shown.startswith("Traceback (most recent call last):\n")
        assert shown.count("Cell In[2]") == 2
        assert shown.endswith("KeyError: 'k'\n")

    def test_drops_our_frames_below_the_users_when_we_raised_on_purpose(self) -> None:
        source = "from paibook.resources import Resources\nResources(workers=-1)"
        error = raised(lambda: Program(source, "Cell In[2]").execute({}))
        shown = user_traceback(error)
        assert isinstance(error, PlanError)
        assert "resources.py" not in shown
        assert "line 2, in <module>" in shown
        assert "workers must be" in shown

    def test_shows_everything_when_nothing_is_the_users(self) -> None:
        error = raised(lambda: Program("x = = 1").execute({}))
        assert "SyntaxError" in user_traceback(error)

    def test_shows_the_cause(self) -> None:
        source = "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('bad') from error"
        shown = user_traceback(raised(lambda: Program(source, "Cell In[4]").execute({})))
        assert shown.index("ZeroDivisionError") < shown.index("ValueError: bad")
        assert "line 2" in shown
        assert "line 4" in shown

    def test_deep_recursion_is_shown_in_short(self) -> None:
        error = raised(lambda: Program("def f(): f()\nf()", "Cell In[5]").execute({}))
        shown = user_traceback(error)
        assert isinstance(error, RecursionError)
        assert "Previous line repeated" in shown
        assert len(shown.splitlines()) < 100

    def test_capture_keeps_the_original_and_where(self) -> None:
        error = raised(lambda: Program("int('x')", "Cell In[6]").execute({}))
        captured = capture_error(error, "rank 2")
        assert captured.original is error
        assert (captured.where, captured.name) == ("rank 2", "ValueError")
        assert 'Cell In[6]", line 1' in captured.traceback

    def test_an_error_whose_text_fails_is_captured_all_the_same(self) -> None:
        source = "class Odd(Exception):\n    def __str__(self): raise RuntimeError('no text')\nraise Odd()"
        captured = capture_error(raised(lambda: Program(source).execute({})), "rank 0")
        assert captured.name == "Odd"


def test_line_numbers_of_functions_are_the_cells() -> None:
    namespace: dict[str, Any] = {}
    Program("\n\n\ndef f():\n    return 1", "Cell In[7]").execute(namespace)
    assert namespace["f"].__code__.co_firstlineno == 4
    assert namespace["f"].__code__.co_filename == "Cell In[7]"
    assert inspect.getsource(namespace["f"]) == "def f():\n    return 1\n"
