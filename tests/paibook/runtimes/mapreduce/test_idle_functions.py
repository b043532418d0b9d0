"""Functions of a cell that would never be called are refused before anything runs."""

from __future__ import annotations

import textwrap

import pytest

from paibook.errors import ProgramError
from paibook.program import Program
from paibook.runtimes.mapreduce.outline import outline

TABLES = "import pandas as pd\ndef map(rows: pd.DataFrame) -> pd.DataFrame:\n    return rows\n"
PAIRS = "def map(record):\n    yield record, 1\n"
LAST = "def reduce(key, values):\n    yield key\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            TABLES + "def partition(key, partitions):\n    return 0\n" + LAST,
            "'partition' is called with the keys of pairs, but 'map' gives tables",
        ),
        (
            TABLES + "def combine(key, values):\n    yield key, 1\n" + LAST,
            "'combine' takes values of a key, but 'map' gives tables; annotate both for tables",
        ),
        (
            PAIRS
            + "import pandas as pd\ndef order(value):\n    return value\n"
            + "def reduce(rows: pd.DataFrame) -> pd.DataFrame:\n    return rows\n",
            "'order' sorts the values of a key, but 'reduce' takes a whole table; sort it there",
        ),
        (
            PAIRS
            + LAST
            + "import pandas as pd\ndef map2(rows: pd.DataFrame) -> pd.DataFrame:\n    return rows\n"
            + "def partition2(key, partitions):\n    return 0\n"
            + "def reduce2(key, values):\n    yield key\n",
            "'partition2' is called with the keys of pairs, but 'map2' gives tables",
        ),
    ],
)
def test_what_would_never_be_called(source: str, said: str) -> None:
    with pytest.raises(ProgramError) as refused:
        outline(Program(textwrap.dedent(source)))
    assert said in str(refused.value)


def test_what_is_called_is_not_refused() -> None:
    made = outline(
        Program(PAIRS + "def partition(key, partitions):\n    return 0\ndef order(v):\n    return v\n" + LAST)
    )
    assert made.stages[0].has_partition
    assert made.stages[0].has_order
