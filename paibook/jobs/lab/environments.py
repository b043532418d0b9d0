"""The environments that the dialog offers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from jupyter_scheduler.environments import EnvironmentManager
from jupyter_scheduler.models import RuntimeEnvironment

CONDA_SECONDS = 20.0
FORMATS = {"ipynb": "Notebook", "html": "HTML", "script": "Script"}
HERE = "this server's"


class PaiEnvironmentManager(EnvironmentManager):
    """The notebook's own kernel as this server has it, and the environments of conda where there is one."""

    def list_environments(self) -> list[RuntimeEnvironment]:
        """Each with the path of its Python in its metadata."""
        return [_environment(HERE, ""), *(_environment(path.name, str(path)) for path in _conda())]

    def manage_environments_command(self) -> str:
        """None: they are made outside."""
        return ""

    def output_formats_mapping(self) -> dict[str, str]:
        """Formats that a job can be written in."""
        return dict(FORMATS)


def _conda() -> list[Path]:
    try:
        listed = subprocess.check_output(["conda", "env", "list", "--json"], timeout=CONDA_SECONDS)
        paths = [Path(text) for text in json.loads(listed).get("envs", [])]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    return [path for path in paths if str(path) != sys.prefix and (path / "bin" / "python").exists()]


def _environment(name: str, path: str) -> RuntimeEnvironment:
    return RuntimeEnvironment(
        name=name,
        label=name,
        description=f"Environment: {name}",
        file_extensions=["ipynb"],
        output_formats=list(FORMATS),
        # By the second, the dialog's form knows whose scheduler it talks to.
        metadata={"path": path, "scheduler": "paibook"},
    )
