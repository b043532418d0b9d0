"""What can be asked of ranks between cells; see tests/magics/test_rank_lines.py for real processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from paibook.clusters.contract import Place
from paibook.clusters.inline import InlineCluster
from paibook.errors import PlanError
from paibook.runtimes.inspection import check_idle, complete, describe, holding, on_ranks


@pytest.fixture
def cluster() -> Iterator[InlineCluster]:
    made = InlineCluster()
    yield made
    made.close()


def fill(place: Place) -> None:
    place.namespace.update(w=np.zeros((2, 3), "f4"), names=["a"], kind=int, np=np, comm=1, _hidden=2, text="abc")


def test_variables_are_those_that_cells_made(cluster: InlineCluster) -> None:
    assert on_ranks(cluster, holding) == {}
    [pending] = cluster.ranks(1).apply(fill)
    pending.result(10)
    held = on_ranks(cluster, holding)[0]
    assert {v.name: v.kind for v in held.variables} == {
        "w": "float32[2, 3]",
        "names": "list[1]",
        "kind": "class",
        "text": "str[3]",
    }
    assert next(v.bytes for v in held.variables if v.name == "w") == 24
    assert held.memory > 1 << 20


class Awkward:
    """Whatever is asked of it, it raises."""

    shape = dtype = nbytes = property(lambda self: 1 / 0)

    def __sizeof__(self) -> int:
        raise ValueError


def test_an_awkward_variable_hides_no_other(cluster: InlineCluster) -> None:
    def hold(place: Place) -> None:
        place.namespace.update({"odd": Awkward(), 5: "not a name", "plain": 1})  # type: ignore[dict-item]

    cluster.ranks(1).apply(hold)[0].result(10)
    held = on_ranks(cluster, holding)[0]
    assert [(v.name, v.kind) for v in held.variables] == [("odd", "Awkward"), ("plain", "int")]
    assert on_ranks(cluster, complete, "pla", 10) == {0: ["plain"]}


def test_busy_ranks_are_left_alone(cluster: InlineCluster) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def wait(place: Place) -> None:
        begun.set()
        go_on.wait(10)

    ranks = cluster.ranks(2)
    [pending] = ranks.apply(wait, ranks=[1])
    assert begun.wait(10)
    assert list(on_ranks(cluster, holding)) == [0]
    with pytest.raises(PlanError, match="rank 1 is busy"):
        check_idle(cluster, 1)
    go_on.set()
    pending.result(10)
    assert list(on_ranks(cluster, holding)) == [0, 1]


class Watched:
    """Notes when its property is read."""

    reads = 0

    @property
    def costly(self) -> list[int]:
        Watched.reads += 1
        return []


def test_completion_runs_nothing(cluster: InlineCluster) -> None:
    def hold(place: Place) -> None:
        place.namespace.update(watched=Watched(), matrix=np.zeros(2), _hidden=1)

    cluster.ranks(1).apply(hold)[0].result(10)

    def completed(text: str) -> list[str]:
        return on_ranks(cluster, complete, text, 100)[0]

    assert completed("watc") == ["watched"]
    assert completed("watched.cos") == ["watched.costly"]
    assert completed("watched.costly.app") == []
    assert completed("matrix.sh") == ["matrix.shape"]
    assert completed("nothing.x") == []
    assert completed("_hid") == ["_hidden"]
    assert "_hidden" not in completed("")
    assert completed("lamb") == ["lambda"]
    assert Watched.reads == 0


def test_a_description_runs_nothing(cluster: InlineCluster) -> None:
    def hold(place: Place) -> None:
        place.namespace.update(watched=Watched(), numbers=list(range(1000)), matrix=np.zeros((2, 3)))

    cluster.ranks(1).apply(hold)[0].result(10)

    def described(text: str, detailed: bool = False) -> str | None:
        return on_ranks(cluster, describe, text, detailed)[0]

    Watched.reads = 0
    assert described("nothing") is described("nothing.x") is described("watched.costly.append") is None
    assert described("watched.costly") == "Type:      property"
    assert described("watched") is not None
    assert "list[1000]" in str(described("numbers"))
    assert len(str(described("numbers"))) < 300
    assert "append(object, /)" in str(described("numbers.append"))
    assert "float64[2, 3]" in str(described("matrix"))
    assert "class Watched" not in str(described("Watched"))
    assert "Stable sort" in str(described("sorted")) or "sorted(iterable" in str(described("sorted"))
    assert Watched.reads == 0
