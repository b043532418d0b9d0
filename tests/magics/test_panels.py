"""The panels of the line magics: as text outside notebooks, and in a real kernel without a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from paibook.errors import PlanError
from paibook.session import Session
from paibook.widgets import gpus
from paibook.widgets.output import VIEW
from paibook_magics.lines import GPUS_HELP, Lines
from paibook_magics.panels import KEPT

if TYPE_CHECKING:
    from conftest import Notebook


def test_outside_a_notebook_gpus_are_text(
    runs_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpus, "readings", list)
    monkeypatch.setattr(gpus, "absent", lambda: "no GPU here: no driver")
    lines = Lines(Session("inline"), {})
    assert lines.gpus("") is None
    assert capsys.readouterr().out == "no GPU here: no driver\n"
    with pytest.raises(PlanError) as caught:
        lines.gpus("all")
    assert str(caught.value) == f"%pai_gpus all: not understood\n\n{GPUS_HELP}"


@pytest.mark.slow
def test_the_last_panels_are_live_and_those_before_turn_into_tables(fresh_notebook: Callable[..., Notebook]) -> None:
    notebook = fresh_notebook(PAIBOOK_CLUSTER="inline")
    for _ in range(KEPT):
        table, view = notebook.run("%pai_runs").displays
        assert "pai-static" in table["text/html"]
        assert view[VIEW]["model_id"]
    displays = notebook.run("%pai_runs").displays
    assert [VIEW in display for display in displays] == [False, True, False, False]
    assert not any(displays[3].values())
    assert "0 runs" in displays[2]["text/plain"]
    live = "len([w for w in __import__('ipywidgets').Widget.widgets.values() if type(w).__name__ == 'RunsPanel'])"
    assert notebook.value(live) == str(KEPT)


@pytest.mark.slow
def test_looking_at_a_cluster_shows_its_ranks(fresh_notebook: Callable[..., Notebook]) -> None:
    notebook = fresh_notebook(PAIBOOK_CLUSTER="inline")
    notebook.run("%%pai_allreduce -n 2\nrank")
    outcome = notebook.run("%pai_cluster")
    assert outcome.status == "ok"
    assert "worker 1" in outcome.text
    assert "room for 64 ranks" in outcome.stdout
