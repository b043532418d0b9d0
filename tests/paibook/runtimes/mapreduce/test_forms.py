"""The form a function takes is seen from its annotation, before and after the cell runs."""

from __future__ import annotations

import ast
import functools
from typing import Any

import pytest

from paibook.runtimes.mapreduce.forms import form_of, form_of_node, imports_of

CASES = [
    ("", "record", "records"),
    ("", "record: dict", "records"),
    ("", "", "records"),
    ("import pyarrow as pa", "rows: pa.Table", "arrow"),
    ("import pyarrow", "rows: pyarrow.Table", "arrow"),
    ("import pyarrow.compute", "rows: pyarrow.Table", "arrow"),
    ("from pyarrow import Table", "rows: Table", "arrow"),
    ("import pandas as pd", "rows: pd.DataFrame", "pandas"),
    ("import pandas", "rows: 'pandas.DataFrame'", "pandas"),
    ("from pandas import DataFrame as Frame", "rows: Frame", "pandas"),
    ("import pandas as pd\nFrame = pd.DataFrame", "rows: Frame", "pandas"),
    ("from __future__ import annotations\nimport pandas as pd", "rows: pd.DataFrame", "pandas"),
    ("from __future__ import annotations\nimport pandas as pd", "rows: 'pd.DataFrame'", "pandas"),
    ("import pandas as pd", "rows: pd.DataFrame, /, more=1", "pandas"),
    ("import pandas as pd", "rows: pd.Series", "records"),
    ("import pandas as pa", "rows: pa.DataFrame", "pandas"),
    ("class Table: pass", "rows: Table", "records"),
    ("import types as pa\npa.Table = int", "rows: pa.Table", "records"),
    ("import pyarrow as pa", "rows: pa.Table | None", "records"),
    ("", "rows: 'not a name'", "records"),
    ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import polars as pl", "rows: 'pl.DataFrame'", "polars"),
    ("", "rows: 'polars.DataFrame'", "polars"),
]


@pytest.mark.parametrize(("head", "parameters", "form"), CASES)
def test_seen_before_and_after_the_cell_runs(head: str, parameters: str, form: str) -> None:
    source = f"{head}\ndef map({parameters}):\n    return None\n"
    tree = ast.parse(source)
    node = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    assert form_of_node(node, imports_of(tree)) == form
    namespace: dict[str, Any] = {}
    exec(compile(source, "<cell>", "exec", dont_inherit=True), namespace)
    assert form_of(namespace["map"]) == form
    assert form_of(namespace["map"], namespace) == form


def test_polars_classes() -> None:
    polars = pytest.importorskip("polars", reason="Polars is not installed")

    def map_(rows: Any) -> None: ...

    map_.__annotations__["rows"] = polars.DataFrame
    assert form_of(map_) == "polars"


def test_a_decorated_function_and_things_without_a_signature() -> None:
    def reduce(rows: pandas.DataFrame) -> None:  # type: ignore[name-defined]  # noqa: F821
        ...

    @functools.wraps(reduce)
    def wrapped(*arguments: Any) -> None: ...

    assert form_of(wrapped) == "pandas"
    assert form_of(dict) == "records"


def test_a_subclass_of_a_frame() -> None:
    import pandas

    class Measurements(pandas.DataFrame):
        pass

    def map_(rows: Any) -> None: ...

    map_.__annotations__["rows"] = Measurements
    assert form_of(map_) == "pandas"
