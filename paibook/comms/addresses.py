"""Where the mailboxes of one host's ranks are: a file for each rank, in the folder where its group meets.

So two ranks find each other while a third does not communicate. The folder goes when all ranks have connected, and know
all addresses, or when a rank leaves before that: then whoever still looks for an address is told.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

from paibook.comms.errors import CommunicatorError
from paibook.comms.rendezvous import open_folder

POLL_SECONDS = 0.001

Address = tuple[str, int]


class Addresses:
    """Addresses of mailboxes, by rank.

    Args:
        folder: Where the ranks meet; made here if this rank is the first.
        rank, address: This rank's own, told to the others.

    Raises:
        CommunicatorError: The folder belongs to somebody else, or another rank has ended the group.
    """

    def __init__(self, folder: Path, rank: int, address: Address) -> None:
        self._folder = folder
        self._known: dict[int, Address] = {rank: address}
        self._connecting = False
        open_folder(folder)
        # Also at the process's end. A rank that is killed leaves the folder to the others.
        self.clear = weakref.finalize(self, _remove, folder, os.getpid())
        try:
            _write(folder / _name(rank), json.dumps(address))
        except FileNotFoundError:
            raise CommunicatorError("another rank has ended this group of ranks") from None

    def of(self, rank: int) -> Address:
        """A rank's address; waits until that rank has communicated for the first time.

        Raises:
            CommunicatorError: The group was ended before.
        """
        while rank not in self._known:
            try:
                host, port = json.loads((self._folder / _name(rank)).read_text())
                self._known[rank] = host, port
            except FileNotFoundError:
                if not self._connecting and rank not in self._known and not self._folder.exists():
                    text = f"the group of ranks was ended before rank {rank} communicated"
                    raise CommunicatorError(text) from None
                time.sleep(POLL_SECONDS)
        return self._known[rank]

    def connecting(self) -> None:
        """Say that all addresses are on their way, and that the folder may go at any time."""
        self._connecting = True

    def learn(self, addresses: Sequence[Address]) -> None:
        """Take all addresses."""
        self._known.update(enumerate(addresses))

    def close(self) -> None:
        """Free whoever waits for an address, here and on the other ranks."""
        self._connecting = False
        self.clear()


def _name(rank: int) -> str:
    return f"mailbox-{rank}"


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}")
    beside.write_text(text)
    os.replace(beside, path)  # whoever reads it finds all of it


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not in a forked child
        shutil.rmtree(folder, ignore_errors=True)
