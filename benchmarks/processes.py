"""Runs a side that is a program of its own, and reads what it found."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # as many as torchrun gives: one a rank


def run(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> Any:
    """Run a command with a file's name as its last argument; returns what it wrote there as JSON.

    Args:
        environment: Added to this process's.
        seconds: After which it has failed.

    Raises:
        RuntimeError: It failed, or took too long; says how.
    """
    with tempfile.TemporaryDirectory(prefix="paibook-benchmarks-") as folder:
        file = Path(folder) / "found.json"
        own = {"PAIBOOK_RUNS": str(Path(folder) / "runs")}
        try:
            ended = subprocess.run(
                [*command, str(file)],
                cwd=ROOT,
                env={**os.environ, **_ENVIRONMENT, **own, **environment},
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"not done after {seconds:g} s") from error
        if ended.returncode or not file.exists():
            raise RuntimeError(" / ".join(ended.stderr.strip().splitlines()[-5:]))
        return json.loads(file.read_text())
