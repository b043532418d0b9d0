"""Estimators on parameter servers, with servers and workers as threads of this process."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paibook.algorithms import train
from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

Cell = Callable[..., Any]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    made = Session("inline", RunHistory(tmp_path_factory.mktemp("runs")))
    yield made
    made.close()


@pytest.fixture
def fitted(session: Session) -> Callable[..., Any]:
    """``fitted(estimator, X, y)``: trained by two workers and two servers."""

    def fit(estimator: Any, X: Any, y: Any = None, **options: Any) -> Any:
        return train(estimator, X, y, session=session, **{"workers": 2, "servers": 2, **options})

    return fit


@pytest.fixture
def cell(session: Session) -> Cell:
    """``cell(source, workers=1, x=...)``: the run's result of a ``%%pai_ps`` cell."""

    def run(
        source: str, workers: int = 1, servers: int = 2, options: dict[str, Any] | None = None, **pushed: Any
    ) -> Any:
        program = Program(textwrap.dedent(source).strip(), "<cell>")
        resources = Resources(workers=workers, servers=servers)
        plan = Plan("ps", program, resources, cluster="inline", options=options or {}, push=tuple(pushed))
        return session.run(plan, pushed).result()

    return run
