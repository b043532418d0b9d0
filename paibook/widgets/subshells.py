"""Kernel subshells: what a page sends to a widget is handled while a cell keeps the kernel's main thread."""

from __future__ import annotations

from typing import Any


def take_where_sent(comm: Any) -> None:
    """Have what the page sends handled on the subshell it was sent to.

    ipykernel 7.4 sends a comm's messages to whichever shell the kernel last published on that comm from: the main one,
    for widgets that a cell draws. There, a click waits until the cell ends.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, subshell: subshell
