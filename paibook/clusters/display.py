"""MIME bundles of values, where a process has IPython and where it has not."""

from __future__ import annotations

import sys
from typing import Any


def mime_bundle(value: Any) -> dict[str, Any]:
    """A value's representations by MIME type, always with ``text/plain``."""
    shell = _shell()
    if shell is None:
        return {"text/plain": repr(value)}
    bundle, _metadata = shell.display_formatter.format(value)
    return bundle or {"text/plain": repr(value)}


def _shell() -> Any:
    # IPython is never imported for this: only a process that already runs it has a shell.
    interactive = sys.modules.get("IPython.core.interactiveshell")
    if interactive is None or not interactive.InteractiveShell.initialized():
        return None
    return interactive.InteractiveShell.instance()
