"""Vowpal Wabbit ``--ftrl`` in one process, over the binary cache that it makes of the rows."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from vowpalwabbit import Workspace

from benchmarks.ps_jobs import crossed, work

BITS = f"-b {crossed.BITS} --loss_function logistic --quiet"
ALPHA, BETA = 0.0002, 1.0  # the best of a few, as are ours
PASSES = 1


def main() -> None:
    """Make the cache, then learn from it, then predict the test rows."""
    train, test = crossed.text(crossed.TRAIN), crossed.text(crossed.TEST)
    cache = Path(f"{train}.cache")
    if not cache.exists():
        Workspace(f"-d {train} --cache_file {cache} -t {BITS}").finish()
    with tempfile.TemporaryDirectory() as folder:
        model, raw = Path(folder) / "model", Path(folder) / "raw"
        began = time.time()
        Workspace(
            f"--cache_file {cache} --passes {PASSES} --ftrl --ftrl_alpha {ALPHA} --ftrl_beta {BETA} -f {model} {BITS}"
        ).finish()
        seconds = time.time() - began
        Workspace(f"-d {test} -t -i {model} -r {raw} --quiet").finish()
        scores = np.array([float(line.split()[0].split(":")[-1]) for line in raw.read_text().splitlines()])
    labels = crossed.rows(crossed.TEST).labels
    loss = float(np.mean(np.logaddexp(0, scores) - labels * scores))
    work.write(crossed.found(seconds, loss))


if __name__ == "__main__":
    main()
