"""Real kernels, driven as a front end drives them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager, start_new_kernel

ROOT = Path(__file__).resolve().parents[2]
WAIT = 90


@dataclass
class Outcome:
    """What a front end sees of one executed cell."""

    status: str = ""
    ename: str = ""
    evalue: str = ""
    traceback: str = ""
    stdout: str = ""
    stderr: str = ""
    displays: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """The plain text of everything displayed."""
        return "\n".join(str(display.get("text/plain", "")) for display in self.displays)


class Notebook:
    """A kernel with the extension loaded, and a way to run cells in it."""

    def __init__(self, environment: dict[str, str]) -> None:
        roots = os.pathsep.join(str(ROOT / root) for root in (".", "magics", "kernels"))
        self.manager: KernelManager
        self.manager, self.client = start_new_kernel(
            kernel_name="python3", env={**os.environ, "PYTHONPATH": roots, **environment}
        )
        self.run("%load_ext paibook")

    @property
    def pid(self) -> int:
        """The kernel's process id."""
        return int(self.manager.provisioner.process.pid)  # type: ignore[union-attr]

    def run(self, code: str, meanwhile: Callable[[Outcome], None] | None = None) -> Outcome:
        """Execute a cell to its end; ``meanwhile`` is called after every output message."""
        outcome = Outcome()

        def hook(message: dict[str, Any]) -> None:
            content = message["content"]
            match message["header"]["msg_type"]:
                case "stream":
                    setattr(outcome, content["name"], getattr(outcome, content["name"]) + content["text"])
                case "display_data" | "execute_result" | "update_display_data":
                    outcome.displays.append(content["data"])
                case "error":
                    outcome.traceback = "\n".join(content["traceback"])
            if meanwhile is not None:
                meanwhile(outcome)

        began = time.monotonic()
        reply = self.client.execute_interactive(code, output_hook=hook, timeout=WAIT)["content"]
        outcome.seconds = time.monotonic() - began
        outcome.status, outcome.ename = reply["status"], reply.get("ename", "")
        outcome.evalue = reply.get("evalue", "")
        return outcome

    def value(self, expression: str) -> str:
        """The repr of an expression in the kernel."""
        reply = self.client.execute("", user_expressions={"value": expression}, reply=True, timeout=WAIT)
        return str(reply["content"]["user_expressions"]["value"]["data"]["text/plain"])

    def close(self) -> None:
        """Shut the kernel down."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=False)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A kernel on the embedded cluster, shared by a module's tests."""
    opened = Notebook({"PAIBOOK_RUNS": str(tmp_path_factory.mktemp("runs"))})
    yield opened
    opened.close()


@pytest.fixture
def fresh_notebook(tmp_path: Path) -> Iterator[Callable[..., Notebook]]:
    """Opens kernels for one test."""
    opened: list[Notebook] = []

    def open_one(**environment: str) -> Notebook:
        opened.append(Notebook({"PAIBOOK_RUNS": str(tmp_path / "runs"), **environment}))
        return opened[-1]

    yield open_one
    for one in opened:
        if one.manager.is_alive():
            one.close()
