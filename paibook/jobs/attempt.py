"""One attempt at a run: its notebook, cell by cell, saved as it grows."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import nbformat

from paibook.errors import PaibookError
from paibook.jobs.checkpoint import names_in
from paibook.jobs.kernel import CellExecutionError, DeadKernelError, JobKernel
from paibook.jobs.notebook import check_job, source, with_parameters
from paibook.jobs.provenance import INTERPRETER, Interpreter
from paibook.jobs.records import DONE, FAILED, STOPPED, JobRun
from paibook.jobs.resuming import Resumption, resumption

SOURCE, OUTPUT, CHECKPOINT, PROGRESS = "source.ipynb", "output.ipynb", "checkpoint.pkl", "progress.json"
SAVE_SECONDS = 2.0
TASKS = "%%pai_mapreduce"


@dataclass(frozen=True)
class Ending:
    """How an attempt ended: ``done``, ``failed`` or ``stopped``, and why."""

    state: str
    error: str = ""
    traceback: str = ""


class Listener(Protocol):
    """Hears how an attempt comes along."""

    def waits(self, reason: str) -> None:
        """It waits for something before its kernel starts; with an empty text, that is there."""

    def started(self, interpreter: Interpreter) -> None:
        """Its kernel runs, in this Python."""

    def begins(self, cell: int) -> None:
        """A cell begins; its index."""


class Attempt:
    """Carries out one attempt.

    Args:
        run: As claimed.
        folder: The run's own; made by the caller.
        listener: Hears how it comes along.
    """

    def __init__(self, run: JobRun, folder: Path, listener: Listener) -> None:
        self.run = run
        self.folder = folder
        self._listener = listener
        self._waits = ""
        self._finished = 0
        self._stopped = asyncio.Event()
        # What an earlier attempt saved must not be overwritten before it is brought back.
        self._may_save = not run.resume
        self.notes: list[str] = []

    def stop(self) -> None:
        """End it soon; call it in the attempt's event loop."""
        self._stopped.set()

    def handle_signals(self) -> None:
        """Stop at SIGTERM and SIGINT; call it in the attempt's event loop, in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

    async def carry_out(self) -> Ending:
        """Run the notebook to its end, its first failed cell, its timeout or a stop; what came so far is saved."""
        try:
            notebook = self._notebook()
        except PaibookError as error:
            return Ending(FAILED, str(error))
        ending = await self._timed(notebook)
        unsaved = self._save(notebook)
        return Ending(FAILED, unsaved) if unsaved and ending.state == DONE else ending

    async def _timed(self, notebook: Any) -> Ending:
        task = asyncio.create_task(self._execute(notebook))
        stopped = asyncio.create_task(self._stopped.wait())
        saver = asyncio.create_task(self._save_now_and_then(notebook))
        try:
            await asyncio.wait({task, stopped}, timeout=self.run.job.timeout, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            task.cancel()
            await asyncio.wait({task})
            if self._stopped.is_set():
                return Ending(STOPPED, "stopped")
            late = f"it took longer than its timeout of {self.run.job.timeout:g} s"
            return Ending(FAILED, f"{late}; it waited: {self._waits}" if self._waits else late)
        finally:
            stopped.cancel()
            saver.cancel()

    def _wait(self, reason: str) -> None:
        self._waits = reason
        self._listener.waits(reason)

    def _notebook(self) -> Any:
        kept = self.folder / SOURCE
        if not kept.exists():
            made = with_parameters(check_job(self.run.job), self.run.job.parameters)
            kept.write_text(json.dumps(made, indent=1))
        return nbformat.read(kept, as_version=4)

    async def _execute(self, notebook: Any) -> Ending:
        index = -1
        try:
            async with JobKernel(
                notebook, self.run.job, self.run.id, self._wait, self.handle_signals
            ).started() as kernel:
                if kernel.python and (answer := await kernel.ask(INTERPRETER)):
                    self._listener.started(Interpreter.of_answer(answer))
                self._finished = first = await self._go_on(kernel, notebook)
                inside = await self._inside(kernel, notebook, first) if self.run.resume else ""
                self._may_save = True
                for index, cell in enumerate(notebook.cells):
                    if index < first:
                        continue
                    self._listener.begins(index)
                    self._progress(at=index, pid=kernel.pid, began=time.time())
                    await kernel.execute(index, cell, inside if index == first else "")
                    await self._keep(kernel, notebook, index)
        except CellExecutionError as error:
            what = f"{error.ename}: {error.evalue}".strip()
            return Ending(
                FAILED, f"cell {index + 1} failed: {_first_line(what)}", _plain(_traceback(error, notebook, index))
            )
        except DeadKernelError:
            return Ending(FAILED, f"the kernel died in cell {index + 1} (the system may be out of memory)")
        except (PaibookError, OSError, RuntimeError) as error:
            return Ending(FAILED, f"{type(error).__name__}: {_first_line(str(error))}")
        return Ending(DONE)

    async def _go_on(self, kernel: JobKernel, notebook: Any) -> int:
        """Bring an earlier attempt's variables and outputs back; returns the first cell to run."""
        plan = self._resumption(notebook) if self.run.resume else Resumption(0)
        if plan.first:
            for index in plan.replay:
                if failed := await kernel.silently(source(notebook.cells[index])):
                    plan = Resumption(0, why=f"cell {index + 1} did not run again: {failed}")
                    break
            else:
                failed = await kernel.silently(_call("restore", self.folder / CHECKPOINT, "get_ipython().user_ns"))
                if failed:
                    plan = Resumption(0, why=f"the variables could not be brought back: {failed}")
        if plan.why:
            self.notes.append(f"started over: {plan.why}")
            await kernel.silently("get_ipython().run_line_magic('reset', '-f')")
        elif plan.first:
            self.notes.append(f"went on at cell {plan.first + 1}")
            earlier = nbformat.read(self.folder / OUTPUT, as_version=4)
            for index in range(plan.first):
                notebook.cells[index] = earlier.cells[index]
        return plan.first

    async def _inside(self, kernel: JobKernel, notebook: Any, first: int) -> str:
        """In place of the first cell, what goes on with the run in which the earlier attempt was killed; or nothing."""
        earlier = self._earlier()
        if earlier.get("at") != first or not source(notebook.cells[first]).startswith(TASKS):
            return ""
        order = f"{earlier['pid']}, {earlier['began']}"
        found = await kernel.ask(f"__import__('paibook.jobs.cell_runs', fromlist=['cut_short']).cut_short({order})")
        if found:
            self.notes.append(f"went on inside cell {first + 1}, with its run {found}")
        return f"%pai_runs resume {found}" if found else ""

    def _earlier(self) -> dict[str, Any]:
        """How far the earlier attempt came."""
        try:
            return dict(json.loads((self.folder / PROGRESS).read_text()))
        except (OSError, ValueError):
            return {}

    def _resumption(self, notebook: Any) -> Resumption:
        finished = self._earlier().get("finished", 0)
        sources = [source(cell) if cell.cell_type == "code" else "" for cell in notebook.cells]
        return resumption(sources, finished, names_in(self.folder / CHECKPOINT))

    async def _keep(self, kernel: JobKernel, notebook: Any, index: int) -> None:
        failed = ""
        if notebook.cells[index].cell_type == "code" and kernel.python:
            shell = "get_ipython().user_ns, get_ipython().user_ns_hidden"
            failed = await kernel.silently(_call("save", self.folder / CHECKPOINT, shell))
        self._save(notebook)
        if failed or not kernel.python:
            return  # a later attempt goes on from the last cell whose variables are there
        self._finished = index + 1
        self._progress()

    def _progress(self, **cell: Any) -> None:
        try:
            _replace(self.folder / PROGRESS, json.dumps({"finished": self._finished, **cell}))
        except OSError as error:
            note = f"a later attempt may not go on here: {error.strerror}"
            if note not in self.notes:
                self.notes.append(note)

    async def _save_now_and_then(self, notebook: Any) -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            self._save(notebook)

    def _save(self, notebook: Any) -> str:
        """Save it; returns why it could not be: a full disk must not hide how the notebook itself ends."""
        if not self._may_save:
            return ""
        try:
            _replace(self.folder / OUTPUT, nbformat.writes(notebook))
        except OSError as error:
            note = f"the notebook could not be saved in {self.folder}: {error.strerror}"
            if note not in self.notes:
                self.notes.append(note)
            return note
        return ""


def _call(function: str, path: Path, arguments: str) -> str:
    order = f"{str(path)!r}, {arguments}"
    return f"__import__('paibook.jobs.checkpoint', fromlist=['{function}']).{function}({order})"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _traceback(error: CellExecutionError, notebook: Any, index: int) -> str:
    for output in notebook.cells[index].get("outputs", ()):
        if output.output_type == "error":
            return "\n".join(output.traceback)
    return str(error.traceback)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


def _first_line(text: str) -> str:
    return (text.strip() or "no message").splitlines()[0]
