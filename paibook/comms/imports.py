"""Importing torch on a rank, where an interrupt may come at any time: half imported, it never can be again."""

from __future__ import annotations

import importlib
import threading

from paibook.errors import PaibookError

_imports: list[threading.Thread] = []


def import_torch() -> None:
    """Import torch in a thread, where an interrupt does not reach it."""
    if not _imports:
        thread = threading.Thread(target=_import, name="paibook-import", daemon=True)
        thread.start()
        _imports.append(thread)
    settle_import()


def settle_import() -> None:
    """Wait for an import whose wait was interrupted: when two threads import torch, one may find it half made."""
    for thread in _imports:
        thread.join()


def _import() -> None:
    try:
        importlib.import_module("paibook.comms.gloo")
    except PaibookError:
        pass  # whoever needs it imports it again, and gets the error
