"""A job's kernel: started for one attempt, with the magics loaded, and ended with everything it started."""

from __future__ import annotations

import ast
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from copy import copy
from pathlib import Path
from typing import Any

import psutil
from traitlets.config import Config

from paibook.errors import PaibookError, PlanError
from paibook.jobs.cards import HeldCards, held_cards
from paibook.jobs.job import Job
from paibook.jobs.secret_references import is_reference, look_up

try:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError
except ImportError as missing:
    raise PlanError("running jobs needs the extra `jobs`: pip install 'paibook[jobs]'") from missing

__all__ = ["CellExecutionError", "DeadKernelError", "JobKernel", "end_processes", "interpreter", "kernel_environment"]

MARK = "PAIBOOK_JOB_RUN"
GONE_SECONDS = 5.0
ALIVE_SECONDS = 1.0  # between looks whether the kernel that is waited for lives


class JobKernel:
    """Runs the cells of one notebook.

    Args:
        notebook: An nbformat node; outputs are put into it as they come.
        job: What it is run for.
        run_id: Marks every process that the kernel starts.
        on_wait: Called with what it waits for before it starts, and with an empty text when that is there.
        handle_signals: Sets the process's handlers of SIGTERM and SIGINT.
    """

    def __init__(
        self,
        notebook: Any,
        job: Job,
        run_id: str,
        on_wait: Callable[[str], None],
        handle_signals: Callable[[], None],
    ) -> None:
        self._on_wait = on_wait
        self._handle_signals = handle_signals
        self._job = job
        self._run_id = run_id
        self._client: Any = NotebookClient(
            notebook,
            timeout=None,
            kernel_name=notebook.metadata.kernelspec.name,
            store_widget_state=False,
            config=Config(KernelManager={"transport_encryption": "auto"}),
            resources={"metadata": {"path": str(Path(job.notebook).parent)}},
        )
        self.python = True

    @asynccontextmanager
    async def started(self) -> AsyncIterator[JobKernel]:
        """The kernel, running with the cards of its job; at the end its processes are gone, and the cards free.

        Raises:
            PaibookError: The kernel is not installed, or the cards cannot be had.
        """
        async with held_cards(self._job, self._on_wait) as cards, self._running(cards):
            yield self

    @asynccontextmanager
    async def _running(self, cards: HeldCards) -> AsyncIterator[None]:
        manager = self._client.create_kernel_manager()
        try:
            spec = manager.kernel_spec
        except KeyError as error:  # jupyter_client's NoSuchKernel
            raise PaibookError(f"the kernel {manager.kernel_name!r} is not installed here") from error
        self.python = spec.language == "python"
        manager._kernel_spec = spec = copy(spec)
        if self._job.environment:
            spec.argv = [interpreter(self._job.environment), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        if cards.lease:  # the kernel's own cards would come on top of the job's
            spec.metadata = {name: value for name, value in spec.metadata.items() if name != "kernel_provisioner"}
        environment = {**kernel_environment(self._job, self._run_id), **cards.environment}
        try:
            # nbclient sets handlers of its own before it first waits: they would end the kernel, not the attempt.
            asyncio.get_running_loop().call_soon(self._handle_signals)
            async with self._client.async_setup_kernel(env=environment):
                cards.hand_over(getattr(manager.provisioner, "pid", None))
                if self.python:
                    await self.silently(
                        "try:\n    get_ipython().run_line_magic('load_ext', 'paibook')\nexcept ImportError:\n    pass"
                    )
                yield
        finally:
            end_processes(self._run_id)

    @property
    def pid(self) -> int:
        """The kernel's process, or 0 where it is none of this host."""
        return int(getattr(self._client.km.provisioner, "pid", None) or 0)

    async def execute(self, index: int, cell: Any, instead: str = "") -> None:
        """Run a cell, or other code in its place; raises as nbclient does."""
        source = cell.source
        cell.source = instead or source
        try:
            await self._client.async_execute_cell(cell, index)
        finally:
            cell.source = source

    async def ask(self, expression: str) -> str:
        """The text that an expression gives in the kernel, or nothing where it fails."""
        reply = await self._reply("", user_expressions={"text": expression})
        answer: Mapping[str, Any] = reply["content"].get("user_expressions", {}).get("text", {})
        return str(ast.literal_eval(answer["data"]["text/plain"])) if answer.get("status") == "ok" else ""

    async def silently(self, code: str) -> str:
        """Run code that is no cell; returns the error's text, or nothing."""
        reply = await self._reply(code, output_hook=lambda message: None)
        content: Mapping[str, Any] = reply["content"]
        return "" if content["status"] == "ok" else f"{content.get('ename')}: {content.get('evalue')}"

    async def _reply(self, code: str, **options: Any) -> Any:
        """The kernel's reply. Raises ``DeadKernelError`` where it dies meanwhile; the client would wait for ever."""
        executed = self._client.kc.execute_interactive(
            code, silent=True, store_history=False, allow_stdin=False, **options
        )
        task = asyncio.ensure_future(executed)
        try:
            while not (await asyncio.wait({task}, timeout=ALIVE_SECONDS))[0]:
                if not await self._client.km.is_alive():
                    raise DeadKernelError("Kernel died")
            return task.result()
        finally:
            task.cancel()


def interpreter(environment: str) -> str:
    """The Python of an environment: the executable itself, or that of a virtual environment's folder.

    Raises:
        PlanError: There is none.
    """
    path = Path(environment).expanduser()
    found = path / "bin" / "python" if path.is_dir() else path
    if not os.access(found, os.X_OK):
        raise PlanError(f"environment {environment!r} has no Python that can be run; looked at {found}")
    return str(found)


def kernel_environment(job: Job, run_id: str) -> dict[str, str]:
    """The environment variables of a job's kernel.

    Raises:
        PlanError: A secret that they refer to is not there.
    """
    given = {name: look_up(value) if is_reference(value) else value for name, value in job.variables.items()}
    wanted = {"PAIBOOK_CLUSTER": job.cluster, MARK: run_id}
    if job.resources.workers:
        wanted["PAIBOOK_WORKERS"] = str(job.resources.workers)
    return {**os.environ, **wanted, **given}


def end_processes(run_id: str) -> None:
    """End every process of a run on this host, but the calling one; they are known by a mark in their environment."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == run_id:
                process.terminate()
                left.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # ended meanwhile, or not ours
    _, alive = psutil.wait_procs(left, GONE_SECONDS)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            print(f"{process.pid} ended by itself", file=sys.stderr)
