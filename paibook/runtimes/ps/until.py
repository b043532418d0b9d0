"""When does a run end? ``--until`` as a safe expression."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from paibook.errors import PlanError
from paibook.program import Program
from paibook.runtimes.ps.until_bounds import may_hold

_EXAMPLE = "'loss < 0.3 or epoch >= 20'"
BUILT_IN = ("epoch", "clock", "seconds")
SINCE_BEST = "since_best"

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class Until:
    """A stop condition, such as ``loss < 0.3 or epoch >= 20``.

    Names are metrics, or ``epoch`` / ``clock`` (clocks every worker has finished) and ``seconds`` (since training
    began). A comparison with a metric nobody has reported yet is neither true nor false (Kleene's logic), so that
    ``not (loss > 0.3)`` does not end a run that has not begun.

    ``since_best(loss) >= 5`` is patience: clocks since ``loss`` was lower than ever before (Prechelt, "Early Stopping -
    But When?", 1998); ``since_best(-accuracy)`` where more is better.
    """

    text: str
    _tree: ast.expr = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Until:
        """Check an expression without evaluating anything.

        Raises:
            PlanError: Not an expression, or something other than comparisons, ``and``, ``or``, ``not``, numbers,
                ``+ - * /`` and names.
        """
        try:
            body = Program(text.strip(), "--until").tree().body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise PlanError(f"--until {text!r} is not an expression such as {_EXAMPLE}: {error}") from error
        if len(body) != 1 or not isinstance(body[0], ast.Expr):
            raise PlanError(f"--until {text!r} is not an expression such as {_EXAMPLE}")
        _check(body[0].value, text)
        if not may_hold(body[0].value, BUILT_IN):
            raise PlanError(f"--until {text!r} can never be true: {', '.join(BUILT_IN)} count up from 0")
        return cls(text, body[0].value)

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics it looks at, in order."""
        return tuple(name for name in self._all_names() if name not in BUILT_IN)

    @property
    def improvements(self) -> tuple[Improvement, ...]:
        """What ``since_best`` is asked of."""
        calls = [node for node in ast.walk(self._tree) if isinstance(node, ast.Call)]
        return tuple({ast.unparse(call): Improvement(ast.unparse(call), call.args[0]) for call in calls}.values())

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether it is true of ``values``, by name and by ``Improvement.text``; unknown is not true.

        >>> Until.parse("loss < 0.3 or epoch >= 20").holds({"epoch": 20})
        True
        >>> Until.parse("not loss > 0.3").holds({"epoch": 20})
        False
        """
        return _truth(self._tree, values) is True

    def describe(self, values: Mapping[str, float]) -> str:
        """The expression with the values it was true of."""
        seen = [*self._all_names(), *(call.text for call in self.improvements)]
        shown = ", ".join(f"{name} = {values[name]:.6g}" for name in seen if name in values)
        return f"{self.text} ({shown})" if shown else self.text

    def _all_names(self) -> list[str]:
        found = [node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)]
        return [name for name in dict.fromkeys(found) if name != SINCE_BEST]


@dataclass(frozen=True)
class Improvement:
    """A ``since_best(...)`` of a condition.

    Attributes:
        text: As it stands there.
    """

    text: str
    _node: ast.expr = field(repr=False, compare=False)

    def number(self, values: Mapping[str, float]) -> float | None:
        """What is to become less; None where it is not known."""
        return _number(self._node, values)


def _check(node: ast.expr, text: str) -> None:
    """A condition: a comparison, or conditions under and, or, not."""
    if isinstance(node, ast.BoolOp):
        for part in node.values:
            _check(part, text)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check(node.operand, text)
    elif isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        for side in (node.left, *node.comparators):
            _check_number(side, text)
    else:
        raise PlanError(f"--until {text!r}: {ast.unparse(node)!r} is not a comparison; write, for example, {_EXAMPLE}")


def _check_number(node: ast.expr, text: str) -> None:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return
    if isinstance(node, ast.Name) and node.id != SINCE_BEST:
        return
    if _is_since_best(node):
        assert isinstance(node, ast.Call)
        _check_number(node.args[0], text)
        return
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        _check_number(node.left, text)
        _check_number(node.right, text)
        return
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        _check_number(node.operand, text)
        return
    raise PlanError(
        f"--until {text!r}: {ast.unparse(node)!r} is not allowed; there are numbers, + - * /, metric names, "
        f"{', '.join(BUILT_IN)}, {SINCE_BEST}(loss)"
    )


def _is_since_best(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == SINCE_BEST
        and len(node.args) == 1
        and not node.keywords
        and not any(isinstance(part, ast.Call) for part in ast.walk(node.args[0]))
    )


def _truth(node: ast.expr, values: Mapping[str, float]) -> bool | None:
    if isinstance(node, ast.BoolOp):
        parts = [_truth(part, values) for part in node.values]
        decisive = isinstance(node.op, ast.Or)
        if decisive in parts:
            return decisive
        return None if None in parts else not decisive
    if isinstance(node, ast.UnaryOp):
        inner = _truth(node.operand, values)
        return None if inner is None else not inner
    assert isinstance(node, ast.Compare)
    sides = [_number(side, values) for side in (node.left, *node.comparators)]
    if None in sides:
        return None
    return all(_COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, sides, sides[1:], strict=False))


def _number(node: ast.expr, values: Mapping[str, float]) -> float | None:
    if isinstance(node, ast.Constant):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return values.get(node.id)
    if isinstance(node, ast.Call):
        return values.get(ast.unparse(node))
    if isinstance(node, ast.UnaryOp):
        inner = _number(node.operand, values)
        return None if inner is None else -inner if isinstance(node.op, ast.USub) else inner
    assert isinstance(node, ast.BinOp)
    left, right = _number(node.left, values), _number(node.right, values)
    if left is None or right is None:
        return None
    if isinstance(node.op, ast.Div) and right == 0:
        return None
    return float(_ARITHMETIC[type(node.op)](left, right))
