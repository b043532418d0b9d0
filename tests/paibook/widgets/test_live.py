import textwrap

import nbformat
import pytest
from nbclient import NotebookClient

from paibook.metrics import MetricStream
from paibook.widgets.figure import VEGALITE
from paibook.widgets.live import LiveCurves

TRAINING = """
import asyncio
from paibook.metrics import Metric, MetricStream
from paibook.widgets.live import LiveCurves

async def train(steps, fail_at=None, ticks=True):
    stream = MetricStream("r1")
    live = LiveCurves(stream, "A run")
    try:
        for step in range(steps):
            stream.append([Metric("", step, "loss", 1 / (1 + step), 0, 0.0)])
            if ticks:
                live.tick()
            await asyncio.sleep(0.02)
            if step == fail_at:
                raise ValueError("diverged")
    finally:
        live.finish()
        live.finish()
"""


def test_a_terminal_gets_text_at_the_end_only(metric, capsys):
    stream = MetricStream()
    live = LiveCurves(stream, "A run")
    live.tick()
    stream.append([metric(step, "loss", 4 - step) for step in range(4)])
    live.tick()
    assert capsys.readouterr().out == ""
    live.finish()
    live.finish()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A run"
    assert lines[2].split() == ["loss", "4", "1", "1", "3", "█▆▃▁"]


def test_a_run_without_metrics_shows_nothing(capsys):
    LiveCurves(MetricStream()).finish()
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def executed():
    sources = [
        TRAINING,
        "await train(20)",
        "await train(0)",
        "await train(5, ticks=False)",
        "try:\n    await train(9, fail_at=3)\nexcept ValueError as error:\n    print(error)",
        """
        # Two runs at once, each in the cell that started it.
        background = asyncio.create_task(train(20))
        """,
        "await train(20); await background; print('both ended')",
    ]
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(source)) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells]


def assert_figure(*outputs):
    """A figure, perhaps with the empty output where the live view was."""
    output, *rest = outputs
    assert all(empty.output_type == "display_data" and not any(empty.data.values()) for empty in rest)
    assert output.output_type == "display_data"
    assert set(output.data) == {VEGALITE, "image/svg+xml", "text/plain"}


@pytest.mark.slow
def test_the_executed_notebook_keeps_only_the_figure(executed):
    assert len(executed[1]) == 2
    assert_figure(*executed[1])


@pytest.mark.slow
def test_no_metrics_no_output(executed):
    assert executed[2] == []


@pytest.mark.slow
def test_metrics_after_the_last_tick_are_shown_too(executed):
    (output,) = executed[3]
    assert_figure(output)


@pytest.mark.slow
def test_a_run_that_failed_keeps_its_curve(executed):
    *figure, printed = executed[4]
    assert_figure(*figure)
    assert printed.text == "diverged\n"


@pytest.mark.slow
def test_a_run_in_the_background_does_not_draw_in_another_cell(executed):
    # nbclient itself drops what a cell shows after it ended, so the background run's own curve is not looked for.
    *figure, printed = executed[6]
    assert_figure(*figure)
    assert printed.text == "both ended\n"


@pytest.mark.slow
def test_a_run_in_the_background_is_plotted_live_where_it_is_asked_for():
    sources = [
        "%load_ext paibook",
        """
        %%pai_allreduce -n 1 --cluster inline --noblock
        import time
        for step in range(30):
            pai.log(step=step, loss=1 / (1 + step))
            time.sleep(0.05)
        """,
        """
        import asyncio, paibook_magics
        run = _
        run.plot(log=True)
        await run
        while paibook_magics._drawing:
            await asyncio.sleep(0.05)
        run.note("after the end"), run.plot().title
        """,
    ]
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(source).strip()) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    *figure, value = notebook.cells[2].outputs
    assert_figure(*figure)
    assert "after the end" in value.data["text/plain"]
