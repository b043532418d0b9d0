"""``{expression}`` and ``$name`` on the lines of magics and commands, found before anything runs."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Collection, Iterator

# `$$name` is IPython's way to write `$name` itself.
_EXPANSION = re.compile(r"\$\$|\{\{|\}\}|\{([^{}]+)\}|\$([A-Za-z_]\w*)")


def pieces(line: str, names: Collection[str]) -> Iterator[tuple[str, bool]]:
    """The line in pieces, each with whether it is an expression over ``names`` rather than text."""
    place = 0
    for match in _EXPANSION.finditer(line):
        expression = (match[1] or match[2] or "").strip()
        if match[0] in ("$$", "{{", "}}"):
            yield line[place : match.start()] + match[0][0], False
        elif expression and _is_known(expression, names):
            yield line[place : match.start()], False
            yield expression, True
        else:
            yield line[place : match.end()], False
        place = match.end()
    yield line[place:], False


def expanded(line: str, names: Collection[str]) -> str:
    """The source of a string: a literal, or an f-string where something is to be filled in."""
    return joined(list(pieces(line, names)))


def joined(found: list[tuple[str, bool]]) -> str:
    """Pieces as the source of a string."""
    if not any(is_expression for _, is_expression in found):
        return repr("".join(text for text, _ in found))
    # One literal after another: an expression's quotes and backslashes never meet those of the text around it.
    parts = [f"str({text})" if is_expression else repr(text) for text, is_expression in found if text]
    return " + ".join(parts)


def _is_known(expression: str, names: Collection[str]) -> bool:
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError:
        return False
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return bool(used) and all(name in names or hasattr(builtins, name) for name in used)
