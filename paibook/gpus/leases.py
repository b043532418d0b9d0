"""The lease book: which process of this machine holds which card, in one file that kernels, ranks and jobs share.

Every change is made under a file lock and appears in one step. A lease belongs to a process, known by its number and
start, and ends with it however it ends: nobody has to be alive to give it back.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import filelock

from paibook.errors import PaibookError, PlanError
from paibook.gpus.devices import Device
from paibook.gpus.holders import Holder, Lease, start_of
from paibook.gpus.room import WHOLE, Policy, choose, refusal, room
from paibook.settings import settings

LOCK_SECONDS = 10.0
# The environment variable by which a kernel knows the lease it was started under.
KERNEL_LEASE = "PAIBOOK_KERNEL_LEASE"


class LeaseBook:
    """The leases of this machine.

    Args:
        folder: Where the book lies; all who share cards must name the same one. Made when the first lease is taken.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = settings().leases if folder is None else folder
        self._path = self.folder / f"{socket.gethostname()}.json"  # the folder may be shared by several machines

    def held(self) -> list[Lease]:
        """The leases of processes that live."""
        return [lease for lease in self._read() if lease.holder.lives()]

    def take(
        self,
        devices: Sequence[Device],
        holder: Holder,
        count: int | None = None,
        share: int = WHOLE,
        policy: Policy = "pack",
        within: str = "",
    ) -> list[Lease]:
        """Take cards, all or none; of several processes that want one card at the same moment, one gets it.

        Args:
            devices: Those to take, or to choose from.
            holder: Who will hold them.
            count: How many of ``devices``, chosen by ``policy``; None takes every one.
            share: Percent of each card.
            policy: See ``choose``.
            within: Id of a lease whose cards may be taken as parts of it.

        Raises:
            PlanError: Too few have room; says who holds them.
            PaibookError: The book cannot be read or written.
        """
        if not 1 <= share <= WHOLE:
            raise PlanError(f"a share of a GPU is 1 to {WHOLE} percent; got {share}")
        new: list[Lease] = []

        def add(leases: list[Lease]) -> list[Lease]:
            if count is None:
                full = [device for device in devices if room(device.uuid, leases, within) < share]
                if full:
                    raise PlanError(refusal(full, leases, len(devices), share, within))
                chosen = list(devices)
            else:
                chosen = choose(devices, leases, count, share, policy, within)
            grant = secrets.token_hex(8)
            here = {lease.card for lease in leases if within and lease.id == within}
            new[:] = [
                Lease(grant, device.uuid, share, holder, time.time(), within if device.uuid in here else "")
                for device in chosen
            ]
            return leases + new

        self._change(add)
        return new

    def hand_over(self, id: str, pid: int) -> None:
        """Make another process the holder of what was taken under an id; nothing where it has ended already."""
        if (started := start_of(pid)) is None:
            return

        def change(leases: list[Lease]) -> list[Lease]:
            return [
                replace(lease, holder=replace(lease.holder, pid=pid, started=started)) if lease.id == id else lease
                for lease in leases
            ]

        self._change(change)

    def give_back(self, id: str) -> None:
        """End what was taken under an id; nothing where it has ended already."""
        if self._path.exists():
            self._change(lambda leases: [lease for lease in leases if lease.id != id])

    def _change(self, change: Callable[[list[Lease]], list[Lease]]) -> None:
        """Replace the leases, those of dead processes left out, by what ``change`` makes of them."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with filelock.FileLock(self._path.with_suffix(".lock"), timeout=LOCK_SECONDS):
                changed = change([lease for lease in self._read() if lease.holder.lives()])
                new = self._path.with_suffix(".new")
                new.write_text(json.dumps([asdict(lease) for lease in changed], indent=1))
                new.replace(self._path)
        except filelock.Timeout as error:
            raise PaibookError(f"the lease book {self._path} was locked for {LOCK_SECONDS:g} s; try again") from error
        except OSError as error:
            raise PaibookError(
                f"cannot write the lease book {self._path}: {error.strerror}; set PAIBOOK_LEASES to a folder you own"
            ) from error

    def _read(self) -> list[Lease]:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise PaibookError(f"cannot read the lease book {self._path}: {error.strerror}") from error
        try:
            return [Lease(**{**entry, "holder": Holder(**entry["holder"])}) for entry in json.loads(text)]
        except (ValueError, TypeError, KeyError) as error:
            raise PaibookError(f"{self._path} is not a lease book ({error}); delete it if no GPU is in use") from error
