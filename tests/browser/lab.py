"""A real JupyterLab on loopback, and Chromium driven over it; for tests and for screenshots.

As a program: ``python tests/browser/lab.py notebook.ipynb out.png [--no-run] [--dark]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

HERE = Path(__file__).parent
START_SECONDS = 60
Action = dict[str, Any]


@dataclass
class Visit:
    """What came of a list of actions: one result each, the page's errors, and addresses blocked as not local."""

    results: list[Any]
    problems: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    @property
    def widget_problems(self) -> list[str]:
        """Errors raised in widgets' own modules (loaded from blobs); JupyterLab's own are left out, it has some."""
        return [problem for problem in self.problems if "blob:" in problem]


class BrowserError(AssertionError):
    """An action in the browser failed; names the action."""


def missing() -> str | None:
    """Why there is no browser to test with, or None."""
    if _chromium() is None:
        return "needs Chromium (Debian: apt-get install chromium)"
    if shutil.which("node") is None:
        return "needs Node.js"
    if not (HERE / "node_modules" / "playwright-core").is_dir():
        return "needs playwright-core (npm ci in tests/browser)"
    return None


def browse(actions: list[Action], token: str = "", size: tuple[int, int] = (1280, 900), seconds: float = 60) -> Visit:
    """Perform ``actions`` (see drive.mjs) in a fresh Chromium; ``seconds`` bounds each one of them.

    Raises:
        BrowserError: An action failed.
    """
    with tempfile.TemporaryDirectory(prefix="pai-chromium-", ignore_cleanup_errors=True) as folder:
        order = {"executable": _chromium(), "profile": folder, "token": token, "width": size[0], "height": size[1]}
        order |= {"timeout": seconds * 1000, "actions": actions}
        environment = {**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        node = subprocess.Popen(["node", str(HERE / "drive.mjs")], text=True, env=environment, **pipes)
        try:
            answer, trouble = node.communicate(json.dumps(order), timeout=seconds * (len(actions) + 2))
        finally:
            # Playwright closes its browser when it is asked to end, and leaves it behind when it is killed.
            node.terminate()
            node.wait(timeout=20)
    if node.returncode:
        raise BrowserError(trouble[-2000:])
    said = json.loads(answer)
    if said["failure"]:
        raise BrowserError(f"{said['failure']}\nthe page's errors: {said['problems']}")
    return Visit(said["results"], said["problems"], said["elsewhere"])


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its folder of notebooks, address and token."""

    folder: Path
    url: str
    token: str

    def visit(self, notebook: str, *actions: Action, **options: Any) -> Visit:
        """Open ``notebook`` by itself (no file browser beside it) and perform ``actions``."""
        opening = {"do": "open", "url": f"{self.url}/doc/tree/{quote(notebook)}?reset"}
        return browse([opening, {"do": "wait", "selector": ".jp-Notebook"}, *actions], self.token, **options)


@contextlib.contextmanager
def running_lab(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Lab]:
    """Start JupyterLab in ``folder`` with a home directory of its own; end it and its kernels at the end."""
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="pai-lab-") as home:
        directories = {f"JUPYTER_{kind}_DIR": f"{home}/{kind.lower()}" for kind in ("CONFIG", "RUNTIME")}
        here = {"HOME": home, "IPYTHONDIR": f"{home}/ipython", "JUPYTER_TOKEN": token, **directories}
        here["JUPYTERLAB_SETTINGS_DIR"] = f"{home}/settings"
        here["JUPYTERLAB_WORKSPACES_DIR"] = f"{home}/workspaces"
        _write_settings(Path(here["JUPYTERLAB_SETTINGS_DIR"]))
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
        command += [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"]
        command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.collaborative=False"]
        log = Path(home) / "lab.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                command,
                env={**os.environ, **here, **(environment or {})},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield Lab(folder, _address(server, Path(here["JUPYTER_RUNTIME_DIR"]), token, log), token)
        finally:
            _end(server)


def screenshot(notebook: Path, out: Path, run: bool = True, dark: bool = False, width: int = 1280) -> Visit:
    """Open ``notebook`` in JupyterLab, run all of it unless told not to, and save a picture of the whole of it."""
    actions: list[Action] = [{"do": "theme", "dark": dark}]
    if run:
        actions += [{"do": "run_all"}, {"do": "idle"}, {"do": "save"}]
    panels = "document.querySelectorAll('.jp-WindowedPanel-outer, .jp-WindowedPanel-inner, .jp-Notebook')"
    whole = f"Math.max(...[...{panels}].map((panel) => panel.scrollHeight))"
    with running_lab(notebook.resolve().parent) as lab:
        settle = {
            "do": "evaluate",
            "script": "new Promise((done) => setTimeout(done, 1500))",
        }  # figures are being drawn
        height = lab.visit(notebook.name, *actions, settle, {"do": "evaluate", "script": whole}).results[-1]
        # A second visit, tall enough for all of it: JupyterLab draws only the cells in sight.
        size = (width, min(12_000, int(height) + 200))
        shot = {"do": "screenshot", "path": str(out)}
        return lab.visit(notebook.name, actions[0], settle, shot, size=size)


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def _write_settings(folder: Path) -> None:
    """No news, no updates, no autosave in the middle of a test, every cell rendered."""
    settings = {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},
        "docmanager-extension/plugin": {"autosave": False},
    }
    for name, values in settings.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


def _address(server: subprocess.Popen[bytes], runtime: Path, token: str, log: Path) -> str:
    """Wait until the server answers; it writes its port to a file when it listens."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(json.JSONDecodeError, urllib.error.URLError, ConnectionError):
                url = f"http://127.0.0.1:{json.loads(file.read_text())['port']}"
                urllib.request.urlopen(f"{url}/api/status?token={token}", timeout=5).close()
                return url
        time.sleep(0.05)
    raise RuntimeError(f"JupyterLab did not start within {START_SECONDS} s:\n{log.read_text()[-3000:]}")


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask the server to end (it ends its kernels), then its whole session if it does not."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=10)


def main() -> None:
    """Take one screenshot."""
    parser = argparse.ArgumentParser(description="Take a picture of a notebook in JupyterLab")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--no-run", action="store_true", help="show it as saved")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    if reason := missing():
        raise SystemExit(reason)
    visit = screenshot(options.notebook, options.out, run=not options.no_run, dark=options.dark)
    for problem in visit.problems:
        print(problem, file=sys.stderr)


if __name__ == "__main__":
    main()
