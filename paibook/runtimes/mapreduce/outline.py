"""The outline of a MapReduce cell: which functions it defines, for which stages and inputs, seen from its syntax.

The functions of the first stage are called ``map``, ``combine``, ``partition``, ``order`` and ``reduce``; those of the
k-th carry its number, as in ``reduce2``. A named input may have a mapper of its own, ``map_NAME``.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass

from paibook.errors import ProgramError
from paibook.program import Program
from paibook.runtimes.mapreduce.forms import form_of_node, imports_of

MAGIC = "%%pai_mapreduce"
SIGNATURES = {
    "map": ("record",),
    "combine": ("key", "values"),
    "partition": ("key", "partitions"),
    "order": ("value",),
    "reduce": ("key", "values"),
    "setup": ("task",),
    "cleanup": ("task",),
}
_NUMBERED = re.compile(r"(map|combine|partition|order|reduce)(\d+)")


@dataclass(frozen=True, slots=True)
class StageOutline:
    """One stage: a map, a shuffle and a reduce.

    Attributes:
        number: From 1.
        has_map, has_combine, has_partition, has_order: Which functions it has.
        has_reduce: False where the cell says ``reduce = None``: the records that map yields are the result.
        relations: Tables that its ``reduce(**relations)`` is given by name, which any earlier function may have made.
        gathers: Whether it has one task, which gets all rows.
    """

    number: int
    has_map: bool
    has_combine: bool
    has_partition: bool
    has_order: bool
    has_reduce: bool
    relations: tuple[str, ...] = ()
    gathers: bool = False


@dataclass(frozen=True, slots=True)
class Outline:
    """What a cell defines.

    Attributes:
        stages: In order, at least one.
        mappers: Names of the inputs that have a mapper of their own.
        of_tables: Names of the functions that are annotated for batches.
    """

    stages: tuple[StageOutline, ...]
    mappers: tuple[str, ...]
    of_tables: frozenset[str] = frozenset()

    @property
    def is_map_only(self) -> bool:
        """Whether nothing is shuffled."""
        return not self.stages[0].has_reduce


def suffixed(name: str, stage: int) -> str:
    """What a stage's function is called: ``reduce``, ``reduce2``, ..."""
    return name if stage == 1 else f"{name}{stage}"


def outline(program: Program, inputs: Collection[str] = ()) -> Outline:
    """Read a cell's outline and refuse a cell that cannot work.

    Args:
        program: The cell.
        inputs: Names of the named inputs; ``""`` stands for those without.

    Raises:
        ProgramError: A function is missing, has a wrong signature, or belongs to no stage or input; names it.
        SyntaxError: The cell is not Python.
    """
    defined = program.names()
    stages = _stages(program, defined)
    mappers = tuple(sorted(name for name in inputs if name and f"map_{name}" in defined))
    without = sorted(name for name in inputs if name not in mappers)
    # Told apart from a missing map, which the check of signatures reports.
    required = {"map": SIGNATURES["map"]} if without or not mappers else {}
    if stages[0].has_reduce:
        required["reduce"] = SIGNATURES["reduce"]
    of_tables = _of_tables(program)
    signatures = _optional(len(stages), mappers)
    program.check(
        MAGIC,
        {name: parameters for name, parameters in required.items() if name not in of_tables},
        {name: parameters for name, parameters in signatures.items() if name not in of_tables},
    )
    _refuse_strangers(program, defined, len(stages), inputs)
    _refuse_idle(stages, [*mappers, ""] if without or not mappers else mappers, of_tables)
    return Outline(tuple(stages), mappers, of_tables)


def _of_tables(program: Program) -> frozenset[str]:
    """Functions annotated for batches, whose parameters are tables."""
    imports = imports_of(program.tree())
    functions = program.functions().items()
    return frozenset(name for name, node in functions if form_of_node(node, imports) != "records")


def _stages(program: Program, defined: set[str]) -> list[StageOutline]:
    numbers = [int(match[2]) for name in defined if (match := _NUMBERED.fullmatch(name)) and match[1] == "reduce"]
    last = max(numbers, default=1)
    for number in range(2, last + 1):
        if f"reduce{number}" not in defined:
            raise ProgramError(f"{MAGIC}: the cell defines reduce{last} but no reduce{number}; stages count from 1")
    has_reduce = not _is_none(program, "reduce")
    if not has_reduce and last > 1:
        raise ProgramError(f"{MAGIC}: `reduce = None` keeps what map yields, so that nothing goes on to reduce2")
    if not has_reduce and {"combine", "partition", "order"} & defined:
        name = min({"combine", "partition", "order"} & defined)
        raise ProgramError(f"{MAGIC}: `reduce = None` keeps what map yields; there is nothing for {name!r} to do")
    return [
        StageOutline(
            number,
            number == 1 or f"map{number}" in defined,
            suffixed("combine", number) in defined,
            suffixed("partition", number) in defined,
            suffixed("order", number) in defined,
            has_reduce,
        )
        for number in range(1, last + 1)
    ]


def _refuse_idle(stages: list[StageOutline], inputs: Collection[str], of_tables: frozenset[str]) -> None:
    """What is called for pairs has nothing to do with tables, and the other way round: defining it is a mistake."""
    for stage in stages:
        combine, partition, order = (suffixed(name, stage.number) for name in ("combine", "partition", "order"))
        if stage.number == 1:
            makers = [f"map_{name}" if name else "map" for name in inputs]
        else:
            makers = [suffixed("map", stage.number) if stage.has_map else suffixed("reduce", stage.number - 1)]
        if stage.has_combine and all((maker in of_tables) != (combine in of_tables) for maker in makers):
            taken, made = ("tables", "pairs") if combine in of_tables else ("values of a key", "tables")
            raise ProgramError(
                f"{MAGIC}: {combine!r} takes {taken}, but {makers[0]!r} gives {made}; annotate both for tables, or none"
            )
        if stage.has_partition and (tables := [maker for maker in makers if maker in of_tables]):
            raise ProgramError(
                f"{MAGIC}: {partition!r} is called with the keys of pairs, but {tables[0]!r} gives tables, whose rows "
                f"go by the hash of --key; leave {partition!r} out, or let {tables[0]!r} yield pairs"
            )
        reduce = suffixed("reduce", stage.number)
        if stage.has_order and reduce in of_tables:
            raise ProgramError(
                f"{MAGIC}: {order!r} sorts the values of a key, but {reduce!r} takes a whole table; sort it there"
            )


def _is_none(program: Program, name: str) -> bool:
    """Whether the cell's last word on a name is ``name = None``."""
    found = False
    for node in program.tree().body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            found = isinstance(node.value, ast.Constant) and node.value.value is None
        elif isinstance(node, ast.FunctionDef) and node.name == name:
            found = False
    return found


def _optional(stages: int, mappers: Collection[str]) -> dict[str, tuple[str, ...]]:
    names = {f"map_{name}": SIGNATURES["map"] for name in mappers}
    for name, parameters in SIGNATURES.items():
        names[name] = parameters
        for number in range(2, stages + 1):
            names[suffixed(name, number)] = parameters
    return names


def _refuse_strangers(program: Program, defined: set[str], stages: int, inputs: Collection[str]) -> None:
    """A function whose name looks like one of ours but would never be called is a mistake, not a helper."""
    functions = program.functions()
    for name in sorted(functions):
        match = _NUMBERED.fullmatch(name)
        if match and not 2 <= int(match[2]) <= stages:
            raise ProgramError(
                f"{MAGIC}: {name!r} belongs to stage {match[2]}, which has no reduce{match[2]}; "
                f"the cell has {stages} stage{'s' * (stages > 1)}"
            )
        if name.startswith("map_") and any(inputs) and name[4:] not in inputs:
            near = difflib.get_close_matches(name[4:], [n for n in inputs if n], n=1)
            hint = f"; did you mean map_{near[0]}?" if near else ""
            known = ", ".join(sorted(n for n in inputs if n))
            raise ProgramError(f"{MAGIC}: {name!r} is the mapper of no input; the named inputs are: {known}{hint}")
