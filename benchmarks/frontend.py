"""A front end: what a notebook page is to a kernel, with a clock.

Times are taken here, in the client, when a message has arrived; the kernel's own are read from the ``date`` its
messages carry in their headers.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from queue import Empty
from types import TracebackType
from typing import Any

import psutil
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager


@dataclass
class Cell:
    """One cell sent to a kernel. Times are ``time.perf_counter`` seconds unless said otherwise.

    Attributes:
        identifier: Of the request.
        sent: When it left.
        status: ``running``, then as the kernel replied: ``ok``, ``error`` or ``aborted``.
        idle: When the client saw the kernel idle again.
        kernel_seconds: Between the kernel's own busy and idle messages.
    """

    identifier: str
    sent: float
    status: str = "running"
    idle: float = 0.0
    kernel_seconds: float = 0.0
    _busy: datetime | None = None
    _streams: list[str] = field(default_factory=list)
    _displays: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """From the request to idle, as seen by the client."""
        return self.idle - self.sent

    @property
    def text(self) -> str:
        """Everything the cell showed, as plain text; a display updated in place counts once."""
        return "".join(self._streams) + "\n".join(self._displays.values())

    def add(self, message: dict[str, Any]) -> bool:
        """Take in one message; whether the kernel is idle with it."""
        kind, content = message["msg_type"], message["content"]
        if kind == "status" and content["execution_state"] == "busy":
            self._busy = _date(message)
        elif kind == "status" and content["execution_state"] == "idle":
            self.idle = time.perf_counter()
            if self._busy is not None:
                self.kernel_seconds = (_date(message) - self._busy).total_seconds()
            return True
        elif kind == "stream":
            self._streams.append(content["text"])
        elif kind == "error":
            self._streams.append("\n".join([*content["traceback"], f"{content['ename']}: {content['evalue']}"]))
        elif kind in ("display_data", "update_display_data", "execute_result"):
            key = content.get("transient", {}).get("display_id") or f"display-{len(self._displays)}"
            self._displays[key] = content["data"].get("text/plain", "")
        return False


class FrontEnd:
    """A kernel of its own, driven as a notebook page drives it; a context manager.

    Args:
        argv: The kernel's command, with ``{connection_file}``.
        environment: Added to the kernel's environment.
        interrupt_mode: ``signal`` or ``message``, as the kernel wants it.
    """

    def __init__(
        self, argv: Sequence[str], environment: dict[str, str] | None = None, interrupt_mode: str = "signal"
    ) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="paibook-bench-"))
        spec = {"argv": list(argv), "display_name": "bench", "language": "python", "interrupt_mode": interrupt_mode}
        (self._home / "kernels" / "bench").mkdir(parents=True)
        (self._home / "kernels" / "bench" / "kernel.json").write_text(json.dumps(spec))
        own = {"IPYTHONDIR": self._home / "ipython", "PAIBOOK_RUNS": self._home / "runs"}
        self._environment = {**os.environ, **{name: str(path) for name, path in own.items()}, **(environment or {})}
        specs = KernelSpecManager(kernel_dirs=[str(self._home / "kernels")])
        self._manager = KernelManager(kernel_name="bench", kernel_spec_manager=specs)
        self._manager.connection_file = str(self._home / "connection.json")
        self._log = (self._home / "kernel.log").open("wb")
        self.launched = 0.0

    def __enter__(self) -> FrontEnd:
        self.launched = time.perf_counter()
        self._manager.start_kernel(env=self._environment, cwd=str(self._home), stdout=self._log, stderr=self._log)
        self._client: BlockingKernelClient = self._manager.client()
        self._client.start_channels()
        try:
            self._client.wait_for_ready(timeout=60)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def execute(self, code: str, timeout: float = 60.0) -> Cell:
        """Run a cell and wait until the kernel is idle, or for ``timeout`` seconds."""
        return self.wait(self.send(code), timeout)

    def send(self, code: str) -> Cell:
        """Send a cell and return without waiting."""
        now = time.perf_counter()
        return Cell(self._client.execute(code, allow_stdin=False), now)

    def wait(self, cell: Cell, timeout: float = 60.0, until: Callable[[Cell], bool] | None = None) -> Cell:
        """Follow a cell until the kernel is idle.

        Args:
            cell: From ``send``.
            timeout: Seconds from now; the cell is still ``running`` after that.
            until: Looks at the cell after each output; when true, the wait ends while the cell goes on.
        """
        deadline = time.perf_counter() + timeout
        while cell.status == "running":
            message = self._next(deadline)
            if message is None:
                break
            if message["parent_header"].get("msg_id") != cell.identifier:
                continue
            if cell.add(message):
                cell.status = self._reply(cell.identifier)
            elif until is not None and until(cell):
                break
        return cell

    def drain(self, cell: Cell, timeout: float, until: Callable[[Cell], bool]) -> float | None:
        """Take in output that comes after idle; seconds from ``sent`` until ``until`` held, or None if it never did."""
        deadline = time.perf_counter() + timeout
        while not until(cell):
            message = self._next(deadline)
            if message is None:
                return None
            if message["msg_type"] != "status":
                cell.add(message)
                cell.idle = time.perf_counter()
        return cell.seconds

    def interrupt(self) -> None:
        """Press Stop."""
        self._manager.interrupt_kernel()

    def close(self) -> None:
        """End the kernel and everything it started, and forget its files."""
        family = self._family()
        client = getattr(self, "_client", None)
        if client is not None:
            client.stop_channels()
        if self._manager.has_kernel:
            self._manager.shutdown_kernel(now=True)
        left = psutil.wait_procs(family, timeout=2)[1]
        for process in left:
            # A peer may leave its ranks running; they were started here, so they end here.
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=2)
        self._log.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def _family(self) -> list[psutil.Process]:
        pid = getattr(self._manager.provisioner, "pid", None)
        try:
            return psutil.Process(pid).children(recursive=True) if pid else []
        except psutil.NoSuchProcess:
            return []

    def _next(self, deadline: float) -> dict[str, Any] | None:
        try:
            message: dict[str, Any] = self._client.get_iopub_msg(timeout=max(0.0, deadline - time.perf_counter()))
        except Empty:
            return None
        return message

    def _reply(self, identifier: str) -> str:
        while True:
            try:
                message = self._client.get_shell_msg(timeout=10)
            except Empty:
                return "lost"
            if message["parent_header"].get("msg_id") == identifier:
                return str(message["content"]["status"])


def _date(message: dict[str, Any]) -> datetime:
    # jupyter_client parses dates; once ipyparallel's client has been used in the process, it leaves them as text.
    date = message["header"]["date"]
    return date if isinstance(date, datetime) else datetime.fromisoformat(date)
