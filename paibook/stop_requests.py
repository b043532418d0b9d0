"""Stop, asked for by another process of the same user: a file in the run's folder, which nobody else may write."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from paibook.errors import PaibookError

STOP = "stop"
LOOK_SECONDS = 0.2


def ask(directory: Path) -> None:
    """Ask whoever carries out the run in this folder to stop it; returns at once.

    Raises:
        PaibookError: The folder is gone, or another user's.
    """
    try:
        (directory / STOP).touch(mode=0o600)
    except OSError as error:
        raise PaibookError(f"cannot ask for a stop in {directory}: {error.strerror}") from error


def withdraw(directory: Path) -> None:
    """Forget what was asked of an earlier process."""
    (directory / STOP).unlink(missing_ok=True)


def watch(directory: Path, ended: threading.Event, stop: Callable[[], None]) -> None:
    """Call ``stop`` once when it is asked for, from a thread that lives until ``ended`` is set."""

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            if (directory / STOP).exists():
                stop()
                return

    threading.Thread(target=look, name=f"paibook-stop-{directory.name}", daemon=True).start()
