"""A real JupyterLab on loopback, and Chromium driven over it; for tests and for screenshots.

As a program: ``python tests/browser/lab.py notebook.ipynb out.png [--no-run] [--dark]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat

HERE = Path(__file__).parent
START_SECONDS = 60
Action = dict[str, Any]
# Every widget is drawn, or JupyterLab has given up on it.
SETTLED = """new Promise((done) => {
  const look = () => {
    const widgets = [...document.querySelectorAll(".jp-OutputArea-output.lm-Panel")];
    const settled = widgets.every((node) => node.children.length || node.classList.contains("jupyter-widgets"));
    if (settled && document.querySelector(".jp-OutputArea-child")) done(true);
    else setTimeout(look, 50);
  };
  look();
})"""
OUTPUTS = """[...document.querySelectorAll(".jp-OutputArea-child")].filter((node) => node.checkVisibility())
  .map((node) => node.innerText.trim())"""


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
    if not all((HERE / "node_modules" / name).is_dir() for name in ("playwright-core", "axe-core")):
        return "needs playwright-core and axe-core (npm ci in tests/browser)"
    return None


class Browser:
    """A Chromium that is started when it is first asked for; each visit has a page of its own, the cache is shared.

    ``close`` ends it.
    """

    def __init__(self) -> None:
        self._node: subprocess.Popen[str] | None = None
        self._folder = ""

    def visit(
        self, actions: Sequence[Action], token: str = "", size: tuple[int, int] = (1280, 900), seconds: float = 60
    ) -> Visit:
        """Perform ``actions`` (see drive.mjs) on a fresh page; ``seconds`` bounds each one of them.

        Raises:
            BrowserError: An action failed.
        """
        order = {"token": token, "width": size[0], "height": size[1], "timeout": seconds * 1000, "actions": actions}
        said = self._ask(json.dumps(order), seconds * (len(actions) + 2))
        if said["failure"]:
            raise BrowserError(f"{said['failure']}\nthe page's errors: {said['problems']}")
        return Visit(said["results"], said["problems"], said["elsewhere"])

    def close(self) -> None:
        """End Chromium, in the middle of a visit too; nothing where there is none."""
        if self._node is None:
            return
        node, self._node = self._node, None
        for pipe in (node.stdin, node.stdout):  # the driver closes its browser when its input ends
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            node.wait(timeout=5)
        except subprocess.TimeoutExpired:
            node.terminate()  # not killed: Playwright would leave its browser behind
            node.wait(timeout=20)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, order: str, seconds: float) -> dict[str, Any]:
        node = self._started()
        assert node.stdin is not None
        assert node.stdout is not None
        node.stdin.write(f"{order}\n")
        node.stdin.flush()
        try:
            ready, _, _ = select.select([node.stdout], [], [], seconds)
            answer = node.stdout.readline() if ready else ""
        except BaseException:
            self.close()  # a test that runs out of time must not leave its answer to the next one
            raise
        if not answer:
            trouble = (Path(self._folder) / "driver.log").read_text()
            self.close()
            raise BrowserError(trouble[-2000:] or f"Chromium gave no answer within {seconds:g} s")
        return dict(json.loads(answer))

    def _started(self) -> subprocess.Popen[str]:
        if self._node is None:
            self._folder = tempfile.mkdtemp(prefix="pai-chromium-")
            here = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), self._folder)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            command = ["node", str(HERE / "drive.mjs")]
            with (Path(self._folder) / "driver.log").open("wb") as log:
                self._node = subprocess.Popen(command, text=True, env={**os.environ, **here}, stderr=log, **pipes)
            assert self._node.stdin is not None
            settings = {"executable": _chromium(), "profile": f"{self._folder}/profile"}
            self._node.stdin.write(f"{json.dumps(settings)}\n")
        return self._node


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab, or one folder of it.

    Attributes:
        folder: Of the notebooks.
        url, token: Where it listens, and what opens it.
        browser: Looks at it.
        data: JupyterLab's data directory, with its kernel specs.
        kernel: The kernel spec of the notebooks that ``write`` makes.
        under: The folder as JupyterLab's own addresses name it: empty, or with a slash at its end.
    """

    folder: Path
    url: str
    token: str
    browser: Browser
    data: Path
    kernel: str = "python3"
    under: str = ""

    def part(self, name: str, environment: Mapping[str, str] | None = None) -> Lab:
        """A folder for the notebooks of one file of tests, whose kernels have an environment of their own."""
        folder = self.folder / name
        folder.mkdir()
        spec = self.data / "kernels" / name
        spec.mkdir(parents=True)
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        described = {"argv": command, "display_name": name, "language": "python", "env": {**(environment or {})}}
        (spec / "kernel.json").write_text(json.dumps(described))
        return replace(self, folder=folder, kernel=name, under=f"{self.under}{name}/")

    def write(self, notebook: str, *sources: str, kernel: str = "") -> Path:
        """Make a notebook of code cells."""
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        name = kernel or self.kernel
        made.metadata.kernelspec = {"name": name, "display_name": name, "language": "python"}
        nbformat.write(made, self.folder / notebook)
        return self.folder / notebook

    def end_kernels(self) -> None:
        """End the kernels of this folder's notebooks."""
        for session in json.loads(self._ask("GET", "sessions")):
            if session["path"].startswith(self.under):
                self._ask("DELETE", f"sessions/{session['id']}")

    def without_kernel(self, notebook: str, *actions: Action) -> dict[str, list[str]]:
        """What the outputs of a saved notebook say, as far as they are in sight, where its kernel is gone.

        ``here``: on the machine where it ran, which trusts it; ``elsewhere``: on another, which does not and has no
        such kernel either; ``html``: exported. The actions are performed elsewhere.
        """
        self.end_kernels()
        texts = [{"do": "evaluate", "script": SETTLED}, {"do": "evaluate", "script": OUTPUTS}]
        here = self.visit(notebook, *texts).results[-1]
        saved = nbformat.read(self.folder / notebook, 4)
        saved.metadata.kernelspec = {"name": "gone", "display_name": "Gone", "language": "python"}
        nbformat.write(saved, self.folder / f"gone-{notebook}")
        dialog = {"do": "click", "selector": ".jp-Dialog button:has-text('No Kernel')"}
        elsewhere = self.visit(f"gone-{notebook}", dialog, *texts, *actions).results[4]
        exported = {"do": "open", "url": self.exported(notebook).as_uri()}
        html = self.browser.visit([exported, {"do": "evaluate", "script": OUTPUTS}]).results[-1]
        return {"here": here, "elsewhere": elsewhere, "html": html}

    def _ask(self, method: str, resource: str) -> bytes:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/api/{resource}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())

    def exported(self, notebook: str) -> Path:
        """Export a notebook as HTML, as ``jupyter nbconvert --to html`` does."""
        from nbconvert import HTMLExporter  # takes a second to import

        out = (self.folder / notebook).with_suffix(".html")
        out.write_text(HTMLExporter().from_filename(str(self.folder / notebook))[0])
        return out

    def address(self, notebook: str) -> str:
        """Where ``notebook`` is by itself, with no file browser beside it."""
        return f"{self.url}/doc/tree/{quote(self.under + notebook)}?reset"

    def visit(self, notebook: str, *actions: Action, **options: Any) -> Visit:
        """Open ``notebook`` by itself and perform ``actions``."""
        opening = {"do": "open", "url": self.address(notebook)}
        wait = {"do": "wait", "selector": ".jp-Notebook"}
        return self.browser.visit([opening, wait, *actions], self.token, **options)


@contextlib.contextmanager
def running_lab(
    folder: Path, environment: Mapping[str, str] | None = None, base_url: str = "/user/teacher/"
) -> Iterator[Lab]:
    """Start JupyterLab in ``folder`` with a home directory of its own; end it and its kernels at the end.

    Args:
        environment: Added to this process's own.
        base_url: The path below which it serves everything, as JupyterHub has its servers do.
    """
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="pai-lab-", ignore_cleanup_errors=True) as home:
        kinds = ("CONFIG", "RUNTIME", "DATA")
        here = {"HOME": home, "IPYTHONDIR": f"{home}/ipython", "JUPYTER_TOKEN": token}
        here |= {f"JUPYTER_{kind}_DIR": f"{home}/{kind.lower()}" for kind in kinds}
        here["JUPYTERLAB_SETTINGS_DIR"] = f"{home}/settings"
        here["JUPYTERLAB_WORKSPACES_DIR"] = f"{home}/workspaces"
        _write_settings(Path(here["JUPYTERLAB_SETTINGS_DIR"]))
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
        command += [f"--ServerApp.base_url={base_url}"]
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
        browser = Browser()
        try:
            url = _address(server, Path(here["JUPYTER_RUNTIME_DIR"]), token, log)
            yield Lab(folder, url, token, browser, Path(here["JUPYTER_DATA_DIR"]))
        finally:
            try:
                browser.close()
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
                said = json.loads(file.read_text())
                url = f"http://127.0.0.1:{said['port']}{said['base_url'].rstrip('/')}"
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
