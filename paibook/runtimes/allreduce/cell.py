"""What travels between the driver and the ranks: the world they form, a cell to run, and each rank's report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pickle import PickleBuffer
from typing import Any

import cloudpickle

from paibook.comms.rendezvous import Meeting
from paibook.errors import UserCodeError
from paibook.program import Program
from paibook.runtimes.allreduce.keeper import Address, Kept, Recovery
from paibook.runtimes.allreduce.whereabouts import Whereabouts
from paibook.runtimes.pulls import Parcel, Wanted

MAX_VALUE_BYTES = 10 << 20
STATE_BEGUN = "state"  # what a rank says when its cell registers a state
ACTIVITY = "activity"  # under which a rank says how it stands
REGROUP = "regroup"  # what a rank is told when it is to leave at its next commit


@dataclass(frozen=True)
class Introduction:
    """A rank as it presents itself to the driver.

    Attributes:
        host: Equal for ranks that share a host.
        host_address: How other hosts reach it.
        cores: Cores this rank's process may use.
        keeper: Where its keeper of snapshots listens.
        lacks: What it lacks for each backend that may be chosen, in words; empty where nothing.
        folder: Where the ranks of its host may meet.
        place: Its rank in the MPI world; -1 outside one.
        store: Address for ``init_process_group``; rank 0 only.
    """

    host: str
    host_address: str
    cores: int
    keeper: Address
    lacks: Mapping[str, str]
    folder: str
    place: int = -1
    store: tuple[str, int] = ("127.0.0.1", 0)


@dataclass(frozen=True)
class World:
    """The ranks that can talk to each other; a new one is made whenever a rank was replaced or a cell failed.

    Attributes:
        id: Unique; names the group of processes or threads.
        size: How many ranks.
        threads: Whether the ranks are threads of the driver's process.
        meeting: Where processes find each other.
        environments: Each rank's environment variables.
        keepers: Addresses of the ranks' keepers of snapshots; empty where the ranks are threads.
        token: What lets ranks into each other's keepers.
        backend: How processes communicate, by its name in ``BACKENDS``.
    """

    id: str
    size: int
    threads: bool
    meeting: Meeting
    environments: tuple[Mapping[str, str], ...] = ()
    keepers: tuple[Address, ...] = ()
    token: bytes = field(default=b"", repr=False)
    backend: str = ""


@dataclass(frozen=True)
class Cell:
    """One cell for every rank that takes part.

    Attributes:
        program: Its source.
        variables: Pushed variables, each pickled on its own; as buffers, which no further pickle copies.
        hyperparameters: The values of ``hp``.
        pull: Names to send back, by rank that sends the value itself; other ranks send a fingerprint.
        ranks: Who takes part.
        attempt: Number of this attempt at running a cell; later ones have greater numbers.
        recovery: The snapshot that ``pai.state`` gives back, where a rank died in the attempt before.
        check: Whether ranks are to say where they wait.
    """

    program: Program
    variables: Mapping[str, PickleBuffer]
    hyperparameters: Mapping[str, Any]
    pull: Wanted
    ranks: tuple[int, ...]
    attempt: int = 0
    recovery: Recovery | None = None
    check: bool = True


@dataclass(frozen=True)
class Value:
    """A value on its way to the notebook, unpickled when it is looked at.

    Attributes:
        data: A pickle, or None when the value could not be pickled or is above ``MAX_VALUE_BYTES``.
        text: Its ``repr`` then.
    """

    data: bytes | None
    text: str = ""

    @classmethod
    def of(cls, value: Any) -> Value:
        """Pickle a value, or describe it."""
        try:
            data = cloudpickle.dumps(value, protocol=5)
        except Exception:  # user objects may fail to pickle in any way at all
            return cls(None, repr(value))
        return cls(data) if len(data) <= MAX_VALUE_BYTES else cls(None, repr(value))

    def get(self) -> Any:
        """The value, or its ``repr``."""
        return self.text if self.data is None else cloudpickle.loads(self.data)


class Values(Mapping[int, Any]):
    """The last expression's value on each rank, by rank."""

    def __init__(self, values: Mapping[int, Value]) -> None:
        self._values = dict(values)

    def __getitem__(self, rank: int) -> Any:
        return self._values[rank].get()

    def __iter__(self) -> Iterator[int]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{rank}: {self[rank]!r}' for rank in self)}}}"


@dataclass(frozen=True)
class Report:
    """How a cell ended on one rank.

    Attributes:
        rank: Which.
        value: The last expression's value.
        parcel: Pulled variables.
        error: What the cell raised there.
        time: When it did, seconds since the epoch.
        interrupted: It was stopped by an interrupt.
        consequence: It failed in an operation because a peer had gone.
        steps: Counts that agree between ranks whose communication is in step; see ``Member.steps``.
        kept: The snapshots that lie there, where the cell keeps any.
        where: Where the rank was, and what it had called.
        left: The rank left the cell at a commit, as it was asked to, so that all can go on in a new group.
        activity: How the rank stood then, see ``activity.told``; None where it has not communicated.
    """

    rank: int
    value: Value = Value(None, "None")
    parcel: Parcel = field(default_factory=Parcel)
    error: UserCodeError | None = None
    time: float = 0.0
    interrupted: bool = False
    consequence: bool = False
    steps: tuple[Any, ...] = ()
    kept: Kept | None = None
    where: Whereabouts = field(default_factory=Whereabouts)
    left: bool = False
    activity: dict[str, Any] | None = None


@dataclass(frozen=True)
class AllReduceResult:
    """What a cell gives back.

    Attributes:
        values: The value of the last expression on each rank that ran it; its ``repr`` where the value cannot be
            pickled or takes more than 10 MB.
        pulled: Values of the pulled variables, by name.
        differs: Pulled names whose values disagree between ranks.
    """

    values: Mapping[int, Any]
    pulled: Mapping[str, Any]
    differs: frozenset[str]
