"""Where the ranks of a group find each other.

On one host that is a folder only this user can enter (mode 0700): no port is opened, and the file system vouches for
the peers. Across hosts it is a torch TCPStore on rank 0's host, which authenticates nobody: whoever reaches its port
can read the ranks' addresses and disturb the meeting, so use it on a trusted network. What must not be forged is
protected apart: mailboxes ask for the group's token, and pickled objects carry its signature. gloo's own connections
carry plain array memory, neither authenticated nor encrypted; on one host they stay on loopback.
"""

from __future__ import annotations

import os
import platform
import socket
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paibook.comms.errors import CommunicatorError
from paibook.comms.wire import new_token


@dataclass(frozen=True)
class Meeting:
    """The meeting of one world of ranks.

    Attributes:
        token: The ranks' shared secret, 32 bytes; travels with the cluster's own authenticated calls only.
        folder: Path that starts the names of the folders where the ranks of one host meet; None with several hosts.
        address: Host and port of rank 0's store, used when there is no folder.
        hosts: Each rank's address, as the others reach it; empty on one host.
        folders: As ``folder``, for each rank on its own host; the same for the ranks of one. Empty on one host.
        places: Each rank's rank in the MPI world; -1 outside one.
    """

    token: bytes
    folder: str | None = None
    address: tuple[str, int] = ("127.0.0.1", 0)
    hosts: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    places: tuple[int, ...] = ()

    @classmethod
    def on_this_host(cls) -> Meeting:
        """A new meeting for processes of this host."""
        return cls(new_token(), new_folder())

    def folder_of(self, group: str) -> Path:
        """Where the ranks of one group meet; exists while they are connecting only."""
        return Path(f"{self.folder}.{group}")

    def folders_of(self, rank: int, group: str) -> list[Path]:
        """The folders that a group may have on a rank's host."""
        starts = [self.folder] if self.folder is not None else self.folders[rank : rank + 1]
        return [Path(f"{start}.{group}") for start in starts]

    def beside(self, rank: int) -> tuple[Meeting, list[int]]:
        """The meeting of those that share a rank's host, and who they are."""
        folder = self.folders[rank]
        return Meeting(self.token, folder), [peer for peer, theirs in enumerate(self.folders) if theirs == folder]

    def among(self, ranks: Sequence[int]) -> Meeting:
        """The meeting of some of the ranks, on several hosts."""
        return Meeting(self.token, None, self.address, tuple(self.hosts[rank] for rank in ranks))

    def bind_host(self, rank: int) -> str:
        """The address on which a rank listens: loopback on one host."""
        return "127.0.0.1" if self.folder is not None else self.hosts[rank]

    def __repr__(self) -> str:
        return f"Meeting(folder={self.folder!r}, address={self.address!r})"  # never the token


def new_folder(parent: str | None = None) -> str:
    """A path for ``Meeting.folder``; its 122 random bits keep others from taking it before a rank does.

    Args:
        parent: A folder that goes with this process; by default that of temporary files.
    """
    return str(Path(parent or tempfile.gettempdir()) / f"paibook-ranks-{uuid.uuid4().hex}")


def open_folder(folder: Path) -> None:
    """Make the folder where a group meets, unless another of its ranks was first.

    Raises:
        CommunicatorError: It belongs to another user.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:  # another rank was first
        if folder.stat().st_uid != os.getuid():
            raise CommunicatorError(f"{folder} belongs to another user; the ranks cannot meet there") from None


def host_identity() -> str:
    """Equal on two processes exactly when they share a host and its temporary folder."""
    status = os.stat(tempfile.gettempdir())
    return f"{platform.node()}:{status.st_dev}:{status.st_ino}"


def own_address() -> str:
    """The address other hosts reach this one by: that of the interface of the default route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): picks a route, sends nothing
        except OSError:
            return socket.gethostbyname(socket.gethostname())
        return str(probe.getsockname()[0])


def environment(rank: int, size: int, hosts: Sequence[str], address: tuple[str, int], cores: int) -> dict[str, str]:
    """torchrun's variables for one rank, and the two that keep gloo and its peers from each other's way.

    Args:
        hosts: Each rank's host identity, in rank order.
        address: Where ``init_process_group`` finds rank 0.
        cores: Cores of this rank's host.
    """
    same = [r for r in range(size) if hosts[r] == hosts[rank]]
    groups = list(dict.fromkeys(hosts))
    variables = {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(same.index(rank)),
        "LOCAL_WORLD_SIZE": str(len(same)),
        "GROUP_RANK": str(groups.index(hosts[rank])),
        "MASTER_ADDR": address[0],
        "MASTER_PORT": str(address[1]),
        "OMP_NUM_THREADS": str(max(1, cores // len(same))),
    }
    if len(groups) == 1:
        variables["GLOO_SOCKET_IFNAME"] = "lo" if os.name == "posix" and platform.system() == "Linux" else "lo0"
    return variables
