"""This process's sockets as the kernel lists them, to end connections that a C++ library owns (Linux only)."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Iterator

_DESCRIPTORS = "/proc/self/fd"


def inodes() -> set[int]:
    """Identities of the open sockets; empty where there is no ``/proc``."""
    return {inode for _, inode in _sockets()}


def inodes_of(descriptors: Iterable[int]) -> set[int]:
    """Identities of the sockets among these file descriptors."""
    return {inode for descriptor in descriptors if (inode := _inode(descriptor)) is not None}


def shut_down(chosen: Iterable[int]) -> None:
    """End the connections of these sockets, both ways; their owner gets an error and closes them itself.

    Listening sockets are left alone: gloo ends the process when ``accept`` fails.
    """
    wanted = set(chosen)
    for descriptor, inode in _sockets():
        if inode in wanted:
            _shut_down(descriptor, inode)


def _sockets() -> Iterator[tuple[int, int]]:
    try:
        names = os.listdir(_DESCRIPTORS)
    except OSError:
        return
    for name in names:
        inode = _inode(int(name))
        if inode is not None:
            yield int(name), inode


def _inode(descriptor: int) -> int | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None  # closed since
    return found.st_ino if stat.S_ISSOCK(found.st_mode) else None


def _shut_down(descriptor: int, inode: int) -> None:
    try:
        duplicate = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return  # closed since
    with duplicate:
        # The number may have been reused between the listing and now; the duplicate cannot be.
        if _inode(duplicate.fileno()) != inode:
            return
        try:
            duplicate.getpeername()
            duplicate.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected: a listening socket, or one that has ended
