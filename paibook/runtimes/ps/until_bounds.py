"""Whether a stop condition can ever be true: interval arithmetic (Moore, "Interval Analysis", 1966) on its syntax tree.

A metric may be any number; ``epoch``, ``clock``, ``seconds`` and ``since_best(...)`` are never negative.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection

Interval = tuple[float, float]
_ANY: Interval = (-math.inf, math.inf)

# Whether a comparison may be true, and whether it may be false, of numbers from two intervals.
_MAY: dict[type[ast.cmpop], Callable[[Interval, Interval], tuple[bool, bool]]] = {
    ast.Lt: lambda a, b: (a[0] < b[1], a[1] >= b[0]),
    ast.LtE: lambda a, b: (a[0] <= b[1], a[1] > b[0]),
    ast.Gt: lambda a, b: (a[1] > b[0], a[0] <= b[1]),
    ast.GtE: lambda a, b: (a[1] >= b[0], a[0] < b[1]),
    ast.Eq: lambda a, b: (_meet(a, b), not _one_number(a, b)),
    ast.NotEq: lambda a, b: (not _one_number(a, b), _meet(a, b)),
}


def may_hold(condition: ast.expr, never_negative: Collection[str]) -> bool:
    """Whether some values make a condition true, as far as each comparison by itself can tell.

    Args:
        condition: As ``Until`` accepts it.
        never_negative: Names that stand for numbers from 0 on.
    """
    return _may(condition, never_negative)[0]


def _may(node: ast.expr, names: Collection[str]) -> tuple[bool, bool]:
    if isinstance(node, ast.BoolOp):
        parts = [_may(part, names) for part in node.values]
        true, false = zip(*parts, strict=True)
        return (all(true), any(false)) if isinstance(node.op, ast.And) else (any(true), all(false))
    if isinstance(node, ast.UnaryOp):
        true_, false_ = _may(node.operand, names)
        return false_, true_
    assert isinstance(node, ast.Compare)
    sides = [_bounds(side, names) for side in (node.left, *node.comparators)]
    parts = [_MAY[type(op)](a, b) for op, a, b in zip(node.ops, sides, sides[1:], strict=False)]
    return all(true for true, _ in parts), any(false for _, false in parts)


def _bounds(node: ast.expr, names: Collection[str]) -> Interval:
    if isinstance(node, ast.Constant):
        value = float(node.value)  # type: ignore[arg-type]
        return value, value
    if isinstance(node, ast.Name):
        return (0.0, math.inf) if node.id in names else _ANY
    if isinstance(node, ast.Call):
        return 0.0, math.inf
    if isinstance(node, ast.UnaryOp):
        low, high = _bounds(node.operand, names)
        return (-high, -low) if isinstance(node.op, ast.USub) else (low, high)
    assert isinstance(node, ast.BinOp)
    a, b = _bounds(node.left, names), _bounds(node.right, names)
    if isinstance(node.op, ast.Add):
        return a[0] + b[0], a[1] + b[1]
    if isinstance(node.op, ast.Sub):
        return a[0] - b[1], a[1] - b[0]
    if isinstance(node.op, ast.Div):
        if b[0] <= 0 <= b[1]:
            return _ANY
        b = 1 / b[1], 1 / b[0]
    ends = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return min(ends), max(ends)


def _meet(a: Interval, b: Interval) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def _one_number(a: Interval, b: Interval) -> bool:
    return a[0] == a[1] == b[0] == b[1]
