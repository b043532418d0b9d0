"""What a cluster is to the rest of paibook: a pair of capabilities, *tasks* and *ranks*.

Runtimes know these classes only; which library stands behind them is each adapter's own matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from paibook.errors import ClusterError, RankLost
from paibook.metrics import Metric
from paibook.resources import CardChoice, Placement

T = TypeVar("T")

EventKind = Literal["stdout", "stderr", "display", "update", "clear", "result", "metric", "progress"]


@dataclass(frozen=True)
class Event:
    """Something a rank or a task says while it runs.

    Attributes:
        kind: ``stdout`` and ``stderr`` carry text; ``display`` and ``result`` (a cell's last expression) carry a MIME
            bundle ``{mime type: data}``; ``update`` carries the bundle that replaces what was displayed under the same
            ``display_id``; ``clear`` carries ``""`` and takes away what this rank displayed so far (with ``wait`` in
            its metadata: once it displays the next thing); ``metric`` carries a list of ``Metric``; ``progress``
            carries what a task has done so far, JSON-able, for the driver that submitted it.
        source: Who says it: ``"worker"``, ``"server"``, or a task's label such as ``"map"``.
        rank: The rank, or the task's number.
        data: As above.
        metadata: What a ``display`` or ``update`` says about its bundle, such as an image's size.
        display_id: The rank's own name for what it displays, by which it can update it; mostly empty.
    """

    kind: EventKind
    source: str
    rank: int
    data: str | dict[str, Any] | list[Metric]
    metadata: dict[str, Any] = field(default_factory=dict)
    display_id: str = ""


OnEvent = Callable[[Event], None]
OnBegun = Callable[[int], None]


class Place(ABC):
    """Where a function runs when it runs on a rank; handed to it as its first argument.

    Attributes:
        role: ``"worker"``, ``"server"`` or ``"coordinator"``.
        rank: Its rank among those of its role.
        namespace: The rank's variables. They live as long as the rank does, from cell to cell.
    """

    role: str
    rank: int
    namespace: dict[str, Any]

    @abstractmethod
    def emit(self, kind: EventKind, data: Any) -> None:
        """Send an event to whoever applied the running function. Safe from any thread."""

    @abstractmethod
    def noticed(self, word: str) -> bool:
        """Whether this word was left for the running function; see ``Ranks.notify``. Safe from any thread."""

    @abstractmethod
    def format(self, value: Any) -> dict[str, Any]:
        """A value's MIME bundle, always with ``text/plain``."""


class Pending(ABC, Generic[T]):
    """A result that will come. ``concurrent.futures.Future`` qualifies, and so does a Dask future."""

    @abstractmethod
    def result(self, timeout: float | None = None) -> T: ...
    @abstractmethod
    def exception(self, timeout: float | None = None) -> BaseException | None: ...
    @abstractmethod
    def done(self) -> bool: ...
    @abstractmethod
    def cancel(self) -> bool: ...
    @abstractmethod
    def add_done_callback(self, callback: Callable[[Any], None]) -> None: ...


class Tasks(ABC):
    """Pure functions, run once each wherever there is room, again where a worker was lost.

    Attributes:
        slots: How many run at once.
    """

    @property
    @abstractmethod
    def slots(self) -> int: ...

    @abstractmethod
    def submit(
        self,
        function: Callable[..., T],
        *args: Any,
        label: str = "task",
        number: int = 0,
        on_event: OnEvent | None = None,
    ) -> Pending[T]:
        """Run ``function(*args)`` on some worker.

        Args:
            function: Anything cloudpickle takes. It must be pure: it may run more than once.
            *args: Plain values, and results of earlier ``submit`` calls (also in lists), which arrive as values.
            label, number: Name the task in events and errors: ``map 3``.
            on_event: Called with what the task prints, displays and logs.

        Returns:
            A pending result. Its exception is ``UserCodeError`` where the function raised one, else what was raised,
            or ``RunError`` when the task's workers kept dying.
        """

    @abstractmethod
    def release(self, pending: Sequence[Pending[Any]]) -> None:
        """Cancel what has not finished and forget the results of what has."""

    def forget(self, pending: Pending[Any]) -> None:
        """Let go of a result that was fetched, so that nobody computes it again where the worker that holds it dies.

        It is to be released with the others all the same. Nothing to do where results are not held on workers.
        """
        return

    @abstractmethod
    def shares(self, path: str) -> bool:
        """Whether every worker sees a file that lies at ``path`` here."""

    @abstractmethod
    def partitions(self, collection: Any) -> list[Pending[Any]]:
        """Compute a Dask collection (a bag, a DataFrame, an array, a list of delayed values) where its data lie.

        Returns:
            One pending value for each partition, to be handed to ``submit``.
        """


class Ranks(ABC):
    """n long-lived processes, numbered from 0, each with its own namespace.

    Attributes:
        role: ``"worker"``, ``"server"`` or ``"coordinator"``.
        size: The number of ranks.
    """

    role: str
    size: int

    @abstractmethod
    def apply(
        self,
        function: Callable[..., T],
        *args: Any,
        ranks: Sequence[int] | None = None,
        each: Callable[[int], tuple[Any, ...]] | None = None,
        on_event: OnEvent | None = None,
        on_begun: OnBegun | None = None,
    ) -> list[Pending[T]]:
        """Run ``function(place, *args)`` on ranks, one call at a time on each, in order of submission.

        Args:
            function: A module-level function of an importable module, or anything cloudpickle takes.
            *args: The same for every rank.
            ranks: Which; all by default.
            each: Further arguments per rank: called with the rank, gives the tuple that follows ``args``.
            on_event: Called with what those ranks print, display and log meanwhile; from a background thread, in
                order per rank. Everything said before the function returned arrives before its result does.
            on_begun: Called with each rank that has the call: from now on ``interrupt`` is heeded there at once.

        Returns:
            One pending result per rank. Its exception is what the function raised (``capture_error`` makes user
            exceptions portable), ``RankLost`` within 0.5 s when the process ended, or ``RunCancelled`` /
            ``KeyboardInterrupt`` after ``interrupt``.
        """

    @abstractmethod
    def interrupt(self, ranks: Sequence[int] | None = None) -> None:
        """Raise ``KeyboardInterrupt`` in the running function, as Ctrl-C does; the namespace is kept.

        A call that is still on its way to an idle rank is withdrawn: it never begins, and its exception is
        ``KeyboardInterrupt``, once the rank has read past it.
        """

    @abstractmethod
    def notify(self, word: str, ranks: Sequence[int] | None = None) -> None:
        """Leave a word for the running function, which learns of it by ``Place.noticed``, and need not heed it.

        A rank that runs nothing is told nothing. On a busy machine a word may be lost: say it again.
        """

    @abstractmethod
    def kill(self, ranks: Sequence[int] | None = None) -> None:
        """End the processes at once; the next ``Cluster.ranks`` call starts fresh ones in their place."""

    @abstractmethod
    def status(self) -> list[RankStatus]: ...

    def take_losses(self) -> list[RankLost]:
        """Ranks that were lost and have been replaced by ones without variables; each loss is given once."""
        return []


@dataclass(frozen=True)
class RankStatus:
    """One rank as it stands. ``state`` is ``idle``, ``busy`` or ``lost``; ``cards`` are the labels of its GPUs."""

    role: str
    rank: int
    host: str
    pid: int
    state: str
    cards: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkerStatus:
    """One task worker as it was heard of last.

    Attributes:
        address: Where it is reached.
        memory, limit: Bytes it uses, and may use; 0 where there is no limit.
        running, waiting: Tasks that run on it, and that it has still to run.
    """

    address: str
    memory: int
    limit: int
    running: int
    waiting: int


@dataclass(frozen=True)
class ClusterStatus:
    """A cluster as it stands.

    Attributes:
        reference: As in the plan.
        address: Where it is reached, or a description.
        workers: Task workers.
        slots: Ranks it can hold in all.
        free: Ranks it could still start.
        ranks: The ranks of this session.
        members: Its task workers, where they can be told apart.
    """

    reference: str
    address: str
    workers: int
    slots: int
    free: int
    ranks: list[RankStatus] = field(default_factory=list)
    members: list[WorkerStatus] = field(default_factory=list)


class Cluster(ABC):
    """Where processes run. Started at most once; every method is safe to call from any thread.

    Attributes:
        reference: What a plan calls it; ``paibook.clusters.connect(reference)`` gives an equal cluster.
        portable: Whether it does so in another process too, also when this one has ended.
    """

    reference: str
    portable: bool = True

    @abstractmethod
    def start(self) -> None:
        """Start or reach the cluster; does nothing when it is ready.

        Raises:
            ClusterError: Naming the address, what was tried and what to do.
        """

    @abstractmethod
    def tasks(self) -> Tasks:
        """The cluster's tasks; starts the cluster when needed."""

    @abstractmethod
    def ranks(
        self,
        size: int,
        role: str = "worker",
        gpus: int = 0,
        placement: Placement = "spread",
        cards: CardChoice = CardChoice(),
    ) -> Ranks:
        """Exactly ``size`` ready ranks of a role, starting those that are missing or lost and keeping the others.

        Args:
            size: 0 means as many as the role has at present; where it has none, one for each worker (at least 1).
            role: Ranks of different roles never share a process.
            gpus: Cards per rank.
            placement: Where ranks are started: spread over the workers, or packed on as few hosts as possible. Those
                that run stay where they are.
            cards: Which cards, and how much of each. Ranks that hold others are replaced.

        Raises:
            NoGPU: Cards are asked for, and there are none.
            PlanError: Too few cards have room: says who holds them.
            ClusterError: It cannot hold so many: says what is free and what was asked.
        """

    def without_lost(self, most: int, role: str = "worker") -> Ranks:
        """At most so many of the role's ranks that live, numbered anew in their order; the lost ones are left out.

        Raises:
            ClusterError: It cannot do that, or none lives.
        """
        raise ClusterError(f"{self.reference} cannot go on with fewer ranks")

    def sibling(self) -> Cluster | None:
        """The same workers with ranks of their own, so that two runs need not take turns; None where that cannot be.

        ``close`` ends those ranks and nothing else; close it before this cluster.
        """
        return None

    @abstractmethod
    def scale(self, workers: int) -> None:
        """Change the number of task workers, where the cluster is ours to change."""

    @abstractmethod
    def status(self) -> ClusterStatus:
        """The cluster as it stands; starts it when needed."""

    def started(self) -> bool:
        """Whether it runs, so that looking at it starts nothing."""
        return True

    @abstractmethod
    def restart(self) -> None:
        """Forget every rank's variables and every task's results, and be ready again."""

    @abstractmethod
    def close(self) -> None:
        """End what this object started, and only that. Safe to call twice."""
