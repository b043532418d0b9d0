"""Programs: a query as a program of the MapReduce model, whose functions have DuckDB run a text on each task's rows.

Being a program like any other, it is retried, backed up, resumed and summed up as any other is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb
import pyarrow
from sqlglot import ErrorLevel
from sqlglot.errors import SqlglotError

from paibook.errors import ProgramError
from paibook.program import Program
from paibook.runtimes.mapreduce.outline import MAGIC, Outline, StageOutline, outline, suffixed
from paibook.runtimes.mapreduce.sql.catalog import Catalog
from paibook.runtimes.mapreduce.sql.fragments import Types, quoted
from paibook.runtimes.mapreduce.sql.queries import Queries
from paibook.runtimes.mapreduce.sql.relations import Exchange, Indivisible, Layout, Part, Relation
from paibook.runtimes.mapreduce.sql.statement import parsed

_HEAD = """\
# The query as a MapReduce program: DuckDB runs each text on the rows of a task, and on SMALL, if there is any: tables
# that the notebook sends along.
import pyarrow as pa
from paibook.runtimes.mapreduce.sql.fragments import query, run
"""


@dataclass(frozen=True)
class Small:
    """Rows that every task is given.

    Attributes:
        name: What the program's texts call them.
        input: Where they come from.
        columns: What is read of it.
        text: The query that makes them.
    """

    name: str
    input: str
    columns: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Compiled:
    """A query, compiled.

    Attributes:
        program: Functions that take tables: ``map_INPUT``, ``reduce``, ``reduce2``, ...
        outline: Its own, with the relations that each stage reduces.
        columns: What is read of each input, by the map tasks.
        small: What every task is given, as the program's variable ``SMALL``: tables by name.
        schema: Of the result.
        types: DuckDB's, of the result's columns.
        reasons: Why the query, or some part of it, runs in one task.
        flows: Its relations: the function that makes it, its name, and the function that reads it. The last function
            makes what has no name and is read by none; ``all_INPUT`` stands for what makes rows for every task.
    """

    program: Program
    outline: Outline
    columns: Mapping[str, tuple[str, ...]]
    schema: pyarrow.Schema
    types: Types
    small: tuple[Small, ...]
    reasons: tuple[str, ...]
    flows: tuple[tuple[str, str, str], ...] = ()


def compiled(text: str, filename: str, schemas: Mapping[str, pyarrow.Schema], small: Collection[str] = ()) -> Compiled:
    """Compile a query.

    Args:
        text: The query, from ``statement``.
        filename: The cell.
        schemas: Of the inputs.
        small: Inputs that every task may be given whole.

    Raises:
        ProgramError: DuckDB refuses the query; names the cell's line.
    """
    with Catalog(schemas, small) as catalog:
        types = catalog.result(text, filename)
        try:
            rows, reasons = _divided(catalog, text, types)
        except Indivisible as error:
            raise ProgramError(f"{MAGIC} --sql: {filename}: the query has {error}; write it in another way") from error
        writer = _Writer(catalog, _exchanges(rows), rows)
        program = Program(writer.text(), f"{filename}, compiled")
        schema = catalog.schema(rows.parts[0].text)
        return Compiled(
            program,
            writer.outline(program),
            writer.columns(),
            schema,
            types,
            writer.small(),
            tuple(reasons),
            writer.flows(),
        )


def _divided(catalog: Catalog, text: str, types: Types) -> tuple[Relation, Sequence[str]]:
    """The rows of a query, and why it is not divided further."""
    queries = Queries(catalog)
    tree = parsed(text)
    try:
        if tree is None:
            raise Indivisible("a text that DuckDB alone can read")
        return _final(catalog, queries.divided(tree), types), queries.reasons
    except Indivisible as error:
        return _final(catalog, queries.whole(text), types), [str(error)]


def _final(catalog: Catalog, rows: Relation, types: Types) -> Relation:
    """The rows with the names and types that DuckDB gives the query's columns."""
    if len(rows.types) != len(types):
        raise Indivisible("columns that are named alike")
    items = {
        name: quoted(own) if found == type else f"CAST({quoted(own)} AS {type})"
        for (name, type), (own, found) in zip(types.items(), rows.types.items(), strict=True)
    }
    return Layout(catalog).select(rows, items)


def _exchanges(rows: Relation) -> list[Exchange]:
    """All that a relation needs, at the levels 1, 2, ... with none left out; earlier ones first."""
    found: dict[Exchange, None] = {}
    pending = list(rows.reads)
    while pending:
        exchange = pending.pop()
        found[exchange] = None
        pending += [read for read in exchange.source.reads if read not in found]
    return sorted(found, key=lambda exchange: (exchange.level, exchange.name))


class _Writer:
    """Writes a program.

    Args:
        catalog: Knows the exchanges.
        exchanges: In the order of their levels.
        rows: The result.
    """

    def __init__(self, catalog: Catalog, exchanges: Sequence[Exchange], rows: Relation) -> None:
        self._catalog, self._rows = catalog, rows
        self._small = [exchange for exchange in exchanges if not exchange.level]
        self._exchanges = [exchange for exchange in exchanges if exchange.level]
        self._levels = {level: i for i, level in enumerate(sorted({e.level for e in self._exchanges}), 1)}

    def text(self) -> str:
        """The program."""
        pieces = [_HEAD]
        more, types = "", "{}"
        if self._small:
            pieces.append(_types("SMALL_TYPES", self._small))
            more, types = " | SMALL", "SMALL_TYPES"
        for input, made in self._made_of_inputs().items():
            pieces.append(f"def map_{input}(rows: pa.Table):\n{_body(made, f'{{{input!r}: rows}}{more}', types)}")
        for level, stage in self._levels.items():
            known = f"RELATIONS_{stage}"
            made = self._made({e.name: e.source.parts for e in self._exchanges if e.source.level == level})
            if self._rows.level == level:
                made[""] = self._pretty(self._rows.parts)
            name = suffixed("reduce", stage)
            pieces.append(_types(known, [e for e in self._exchanges if e.level == level]))
            known += " | SMALL_TYPES" if self._small else ""
            pieces.append(f"def {name}(**relations: pa.Table):\n{_body(made, f'relations{more}', known)}")
        if not self._levels:
            pieces.append("reduce = None\n")
        return "\n".join(pieces)

    def outline(self, program: Program) -> Outline:
        """The program's outline."""
        found = outline(program, self._inputs())
        return replace(found, stages=tuple(map(self._stage, found.stages)))

    def columns(self) -> dict[str, tuple[str, ...]]:
        """The columns that are read of each input."""
        read: dict[str, set[str]] = defaultdict(set)
        for part in self._parts_of_inputs():
            read[part.input].update(part.columns)
        return {
            input: tuple(column for column in self._catalog.inputs[input] if column in names)
            for input, names in read.items()
        }

    def small(self) -> tuple[Small, ...]:
        """What every task is given."""
        parts = {exchange.name: exchange.source.parts[0] for exchange in self._small}
        return tuple(Small(name, part.input, part.columns, self._pretty([part])) for name, part in parts.items())

    def flows(self) -> tuple[tuple[str, str, str], ...]:
        """What makes each relation, its name, and what reads it."""
        found = [
            (maker, exchange.name, suffixed("reduce", self._levels[exchange.level]))
            for exchange in self._exchanges
            for maker in self._makers(exchange.source)
        ]
        sources = [*(exchange.source for exchange in self._exchanges), self._rows]
        readers = {(read, maker) for source in sources for read in source.reads for maker in self._makers(source)}
        given = [(f"all_{e.source.parts[0].input}", e.name, reader) for e, reader in readers if not e.level]
        return (*sorted(given), *found, *((maker, "", "") for maker in self._makers(self._rows)))

    def _makers(self, rows: Relation) -> list[str]:
        if rows.level:
            return [suffixed("reduce", self._levels[rows.level])]
        return sorted({f"map_{part.input}" for part in rows.parts})

    def _stage(self, stage: StageOutline) -> StageOutline:
        level = next((level for level, number in self._levels.items() if number == stage.number), None)
        read = [exchange for exchange in self._exchanges if exchange.level == level]
        return replace(
            stage,
            has_map=stage.number == 1,
            relations=tuple(exchange.name for exchange in read),
            gathers=any(exchange.gathers for exchange in read),
        )

    def _inputs(self) -> list[str]:
        return sorted({part.input for part in self._parts_of_inputs()})

    def _parts_of_inputs(self) -> list[Part]:
        sources = [exchange.source for exchange in self._exchanges] + [self._rows]
        return [part for source in sources if source.level == 0 for part in source.parts]

    def _made_of_inputs(self) -> dict[str, dict[str, str]]:
        """For each input the texts of what its map tasks make."""
        found: dict[str, dict[str, str]] = {}
        for input in self._inputs():
            sources = {e.name: e.source for e in self._exchanges} | {"": self._rows}
            mine = {
                name: [part for part in source.parts if part.input == input]
                for name, source in sources.items()
                if source.level == 0
            }
            found[input] = self._made({name: parts for name, parts in mine.items() if parts})
        return found

    def _made(self, parts: Mapping[str, Iterable[Part]]) -> dict[str, str]:
        return {name: self._pretty(list(some)) for name, some in parts.items()}

    def _pretty(self, parts: Sequence[Part]) -> str:
        texts = [part.text for part in parts]
        text = texts[0] if len(texts) == 1 else " UNION ALL ".join(f"({text})" for text in texts)
        tree = parsed(text)
        if tree is None:
            return text
        try:
            shown = str(tree.sql(dialect="duckdb", pretty=True, unsupported_level=ErrorLevel.RAISE))
            return shown if self._catalog.types(shown) == self._catalog.types(text) else text
        except (duckdb.Error, SqlglotError):  # sqlglot may not know all that the cell has
            return text


def _types(name: str, exchanges: Sequence[Exchange]) -> str:
    listed = "".join(f"    {exchange.name!r}: {dict(exchange.source.types)!r},\n" for exchange in exchanges)
    return f"{name} = {{\n{listed}}}\n"


def _body(made: Mapping[str, str], tables: str, types: str) -> str:
    if list(made) == [""]:
        return f"    return query({_literal(made[''])}, {tables}, {types})\n"
    texts = "".join(f"        {name!r}: {_literal(text)},\n" for name, text in made.items())
    return f"    return run({{\n{texts}    }}, {tables}, {types})\n"


def _literal(text: str) -> str:
    plain = not {"\\", "\r", "\0"} & set(text) and '"""' not in text
    return f'"""\n{text}\n"""' if plain else repr(text)
