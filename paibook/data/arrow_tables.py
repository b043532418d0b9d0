"""Arrow tables straight from files, for functions that take batches: no Python object for each record.

Columns by format: Parquet, CSV and JSON Lines have their own; ``line`` of text; ``label``, ``indices``, ``values`` (and
``qid``) of LIBSVM; ``path`` and ``text`` of documents, ``path`` and ``bytes`` of binary files; ``path``, ``shape`` and
``pixels`` of images.

CSV and JSON Lines have no types of their own. What ``schemas`` makes of some of the input's rows holds for all of it;
without that, each piece goes by its own first rows. Empty fields of a CSV file are null, in columns of text the empty
text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy
import pyarrow
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from paibook.data.csv_files import csv_batches, csv_header
from paibook.data.formats import open_bytes
from paibook.data.frames import table as table_of
from paibook.data.lines import END, decoded, json_batches, line_place, lines_of, stored_blocks
from paibook.errors import DataError

ROWS = 1 << 20  # of a table at most
BYTES = 64 << 20  # of a table, about
BLOCK = 16 << 20  # bytes of text parsed at once


def parquet_tables(
    url: str, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None
) -> Iterator[pyarrow.Table]:
    """A Parquet file's row groups ``start`` to ``stop``, no column read but those asked for.

    Raises:
        DataError: A column that is not there; names the file and the columns there are.
    """
    with open_bytes(url) as file:
        content = pyarrow.parquet.ParquetFile(file)
        schema = content.schema_arrow
        check_columns(columns, schema.names, url)
        groups = range(start, content.num_row_groups if stop is None else stop)
        stored = [content.metadata.row_group(group) for group in groups]
        rows, size = sum(group.num_rows for group in stored), sum(group.total_byte_size for group in stored)
        if columns is not None and not columns:  # the rows still count
            yield pyarrow.table({"": pyarrow.nulls(rows)}).select([])
            return
        batch = max(1024, min(ROWS, BYTES * rows // max(1, size)))
        names = None if columns is None else list(columns)
        for part in content.iter_batches(batch, row_groups=list(groups), columns=names):
            found = pyarrow.Table.from_batches([part])
            yield found if names is None else found.select(names)


def csv_tables(
    url: str,
    delimiter: str = ",",
    start: int = 0,
    stop: int = END,
    columns: Sequence[str] | None = None,
    schema: pyarrow.Schema | None = None,
) -> Iterator[pyarrow.Table]:
    """A CSV file's rows in a range of bytes, as for ``csv_batches``.

    Args:
        url, delimiter, start, stop: As for ``csv_batches``.
        columns: Those to read, all where None.
        schema: Types by name; the file's columns that it lacks are guessed, its own that the file lacks are null.

    Raises:
        DataError: As ``csv_batches``; a value that is not of its column's type; a column that is not there.
    """
    header = csv_header(url, delimiter)
    if not header:
        return
    known = [] if schema is None else schema.names
    check_columns(columns, [*header, *known], url)
    wanted = list(columns) if columns is not None else [*known, *(name for name in header if name not in known)]
    convert = pyarrow.csv.ConvertOptions(column_types=schema, include_columns=wanted, include_missing_columns=True)
    try:
        yield from _read_csv(url, delimiter, start, stop, header, convert)
    except pyarrow.ArrowException as error:
        for _ in csv_batches(url, delimiter, start, stop):
            pass  # what the csv module refuses, it refuses by file and line
        raise DataError(
            f"{url}: a row does not fit the columns' types, which were taken from some of the input's rows: {error}; "
            "correct it, or map records, whose fields are texts"
        ) from error


def _read_csv(
    url: str, delimiter: str, start: int, stop: int, header: list[str], convert: Any
) -> Iterator[pyarrow.Table]:
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    read = pyarrow.csv.ReadOptions(block_size=BLOCK, column_names=header if start else None, use_threads=False)
    with open_bytes(url) as file:
        file.seek(start)
        source = file if stop == END else pyarrow.BufferReader(file.read(stop - start))
        try:
            batches = pyarrow.csv.open_csv(source, read, parse, convert)
        except pyarrow.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            raise
        for batch in batches:
            yield pyarrow.Table.from_batches([batch])


def json_tables(
    url: str,
    start: int = 0,
    stop: int = END,
    columns: Sequence[str] | None = None,
    schema: pyarrow.Schema | None = None,
) -> Iterator[pyarrow.Table]:
    """The JSON objects on the lines that start in a range of bytes; blank lines are skipped.

    What Arrow cannot read (lines that are no objects, a column of texts and numbers) is read as records first.

    Args:
        url, start, stop: As for ``json_batches``.
        columns: Those to read, all where None.
        schema: Types by name; others are guessed, block by block.

    Raises:
        DataError: A line that is not JSON, or a column without a common type; names the file.
    """
    for position, block in stored_blocks(url, start, stop, BLOCK):
        found = json_table(block, schema)
        if found is None:
            found = _table_of_records(url, position, position + len(block), schema)
        if schema is not None:
            found = with_missing(found, schema)
        if columns is not None:
            check_columns(columns, found.column_names, url)
            found = found.select(list(columns))
        yield found


def json_table(block: bytes, schema: pyarrow.Schema | None = None) -> pyarrow.Table | None:
    """The JSON objects on some lines; None where they are not for Arrow to read.

    What looks like a point in time stays the text that it is in JSON, unless the schema says otherwise.
    """
    try:
        found = _read_json(block, schema)
        known = () if schema is None else schema.names
        guessed = [field for field in found.schema if field.name not in known]
        if any(_timeless(field.type) != field.type for field in guessed):
            fields = [field.with_type(_timeless(field.type)) for field in guessed]
            found = _read_json(block, pyarrow.schema([*(schema or ()), *fields]))
        return found
    except pyarrow.ArrowException:
        return None


def _read_json(block: bytes, schema: pyarrow.Schema | None) -> pyarrow.Table:
    parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer")
    read = pyarrow.json.ReadOptions(block_size=len(block) + 1, use_threads=False)
    return pyarrow.json.read_json(pyarrow.BufferReader(block), read, parse)


def _timeless(type: Any) -> Any:
    """A type with text for points in time."""
    if pyarrow.types.is_timestamp(type):
        return pyarrow.string()
    if pyarrow.types.is_list(type):
        return pyarrow.list_(_timeless(type.value_type))
    if pyarrow.types.is_struct(type):
        return pyarrow.struct([type.field(i).with_type(_timeless(type.field(i).type)) for i in range(type.num_fields)])
    return type


def _table_of_records(url: str, start: int, stop: int, schema: pyarrow.Schema | None) -> pyarrow.Table:
    records = [record for batch in json_batches(url, start, stop) for record in batch.records]
    found = table_of(records, url)
    if schema is None:
        return found
    try:
        shared = pyarrow.schema([schema.field(f.name) if f.name in schema.names else f for f in found.schema])
        return found.cast(shared)
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(
            f"{line_place(url, start, 0)} and after: values do not fit the columns' types, which were taken from some "
            f"of the input's rows: {error}; write values of one type per column, or map records"
        ) from error


def text_tables(url: str, start: int = 0, stop: int = END) -> Iterator[pyarrow.Table]:
    """Lines that start in a range of bytes, without their newline, in the column ``line``.

    Raises:
        DataError: As ``text_batches``.
    """
    for position, block in stored_blocks(url, start, stop, BLOCK):
        yield pyarrow.table({"line": _lines(block, url, position)})


def _lines(block: bytes, url: str, position: int) -> pyarrow.Array:
    text = block.replace(b"\r\n", b"\n") if b"\r" in block else block
    codes = numpy.frombuffer(text, numpy.uint8)
    ends = numpy.flatnonzero(codes == ord("\n"))
    if not text.endswith(b"\n"):
        ends = numpy.append(ends, len(text))
    # An array of texts is their bytes, one after the other without newlines, and where each begins.
    offsets = numpy.concatenate([[0], ends - numpy.arange(len(ends))]).astype(numpy.int32)
    content = pyarrow.py_buffer(text.translate(None, b"\n"))
    lines = pyarrow.StringArray.from_buffers(len(ends), pyarrow.py_buffer(offsets), content)
    try:
        lines.validate(full=True)
    except pyarrow.ArrowInvalid:
        return pyarrow.array(lines_of(decoded(block, url, position)))
    return lines


def file_tables(batches: Iterable[Any]) -> Iterator[pyarrow.Table]:
    """Documents, binary files and images as tables, from their records."""
    for batch in batches:
        for record in batch.records:
            columns = {name: [value] for name, value in record.items() if name != "image"}
            if "image" in record:
                columns["shape"] = [list(record["image"].shape)]
                columns["pixels"] = [record["image"].tobytes()]
            yield pyarrow.table(columns)


def gathered(tables: Iterable[pyarrow.Table]) -> Iterator[pyarrow.Table]:
    """The same rows in larger tables: neighbours of one schema together, up to about ``ROWS`` or ``BYTES``."""
    some: list[pyarrow.Table] = []
    rows = size = 0
    for table in tables:
        if some and (rows + table.num_rows > ROWS or size + table.nbytes > BYTES or table.schema != some[0].schema):
            yield pyarrow.concat_tables(some)
            some, rows, size = [], 0, 0
        some.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
    if some:
        yield pyarrow.concat_tables(some)


def with_missing(table: pyarrow.Table, schema: pyarrow.Schema) -> pyarrow.Table:
    """A table with a schema's columns first, null where it had none."""
    present = set(table.column_names)
    own = [name for name in table.column_names if name not in schema.names]
    columns = {
        field.name: table[field.name] if field.name in present else pyarrow.nulls(table.num_rows, field.type)
        for field in schema
    }
    return pyarrow.table({**columns, **{name: table[name] for name in own}})


def selected(tables: Iterable[pyarrow.Table], columns: Sequence[str] | None, place: str) -> Iterator[pyarrow.Table]:
    """Some columns of tables, all where None.

    Raises:
        DataError: A column that is not there.
    """
    for table in tables:
        check_columns(columns, table.column_names, place)
        yield table if columns is None else table.select(list(columns))


def check_columns(columns: Sequence[str] | None, there: Sequence[str], url: str) -> None:
    """Refuse a column that is not there.

    Raises:
        DataError: Naming it, the source and what there is.
    """
    missing = [name for name in columns or () if name not in there]
    if missing:
        raise DataError(f"{url} has no column {missing[0]!r}; it has: {', '.join(dict.fromkeys(there))}")
