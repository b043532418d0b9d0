"""What the processes of a run say to each other: the operations, and the jobs that each is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from paibook.comms.tls import RunCertificate
from paibook.program import Program
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.staleness import Histogram
from paibook.runtimes.pulls import Parcel, Wanted

COORDINATOR_MIME = "application/vnd.paibook.coordinator+json"
GO_ON = 1  # flag of the answer to CLOCK: training continues
WHOLE = 2  # flag of PULL and PUSH: the whole shard, no keys
PUSHED = 4  # flag of ERROR: it is a push that was refused
KNOWN_KEYS = 8  # flag of PULL and PUSH: the keys are those of set ``key_set``, and are not sent
FP16, INT8, TOP_K = 16, 32, 64  # flags of PUSH, the first two of PULL too: gradients or rows go through that filter

MASK = 0xFFFFFFFF  # sequence numbers are of 32 bits


class Op(IntEnum):
    """The first byte of a frame.

    ``table`` is a shard's number in PULL, PUSH and DECLARE to a server: the table's times the partitions, plus the
    partition's.
    """

    OK = 1
    ERROR = 2  # JSON: the message for the user
    JOIN = 3  # JSON: role, rank, incarnation; what else depends on the role
    DECLARE = 4  # JSON: a TableSpec; the coordinator answers with the table's number
    PULL = 5  # int64 keys, known as ``key_set`` from now on; answered with rows, and the slowest worker's clock
    PUSH = 6  # int64 keys, then gradients; ``sequence`` counts this worker's pushes to the partition
    CLOCK = 7  # this worker has come to a clock; the coordinator also hears watched metrics and answers GO_ON or not
    RETIRE = 8  # this worker's train() has returned
    STATUS = 9  # driver to coordinator: answered with JSON: clock, reason, view, fatal
    DESCRIBE = 10  # driver to server: answered with JSON: the shards of one partition (``table``)
    FETCH = 11  # driver to server: answered with a shard, ``keys`` rows at a time: keys (sparse) and rows; 0 is the end
    SHUTDOWN = 12  # the run is over
    ACK = 13  # pushes to partition ``table`` up to ``sequence`` are where they have to be
    BEGIN = 14  # JSON: base, clock: where this worker's process began, and where it is now
    VIEW = 15  # JSON: a View; asked for by workers with the number of the one they have
    IN_SYNC = 16  # server to coordinator: JSON: partition, server: it has a copy now
    LOST = 17  # driver to coordinator: JSON: role, rank, incarnation: its process has ended
    APPLY = 18  # along the chain: clock ``clock`` is over
    RENEW = 19  # along the chain: a new process has the rank of a worker and begins at ``clock``
    LOAD = 20  # along the chain: JSON: a snapshot's description; its arrays follow
    NEXT = 21  # worker to coordinator: JSON: call, count, clock: which data shard now?
    DONE = 22  # worker to coordinator: JSON: call, shard, clock: that data shard is done, and so is its clock
    SAVED = 23  # server to coordinator: JSON: clock, partition: its part of the checkpoint is on disk
    SKIP = 24  # along the chain: ``keys`` rows of the push to ``table`` that comes next were left out
    YIELD = 25  # coordinator to server: JSON: partition, view: another is to be its primary
    YIELDED = 26  # server to coordinator: the same: it answers for the partition no more


@dataclass(frozen=True)
class Saving:
    """Where checkpoints are, and when there is one.

    Attributes:
        folder: Seen by the coordinator and every server.
        every: Clocks; 0 writes none.
        clock: That of the checkpoint in ``folder`` that the run goes on from; 0 when it begins anew.
        tables: Of that checkpoint; see ``checkpoints.tables_of``.
        best: Of that checkpoint: by what ``since_best`` is asked of, the least value and its clock.
    """

    folder: str
    every: int = 0
    clock: int = 0
    tables: tuple[Mapping[str, Any], ...] = ()
    best: Mapping[str, tuple[float, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """What every process of a run is told.

    Attributes:
        run: The run's identifier.
        program: The cell.
        hyperparameters: Seen by the program as ``hp``.
        variables: Pushed notebook variables, by name.
        world_size: Workers.
        servers: Servers at the start, and so partitions.
        consistency: What a pull may miss.
        token: The run's secret; every connection proves that it holds it.
        certificate: The run's, where connections cross hosts and so are encrypted; None on one host.
        replicas: Copies of a partition beside its primary.
        saving: Checkpoints; None for none.
    """

    run: str
    program: Program
    hyperparameters: Mapping[str, Any]
    variables: Mapping[str, Any]
    world_size: int
    servers: int
    consistency: Consistency
    token: bytes = field(repr=False)
    certificate: RunCertificate | None = field(default=None, repr=False)
    replicas: int = 0
    saving: Saving | None = None

    @property
    def clock(self) -> int:
        """The clock at which the run begins."""
        return 0 if self.saving is None else self.saving.clock


@dataclass(frozen=True)
class CoordinatorJob:
    """What the coordinator does.

    Attributes:
        scene: As above.
        toward: A host that must reach it, which tells the address to listen on; empty for loopback.
        until: The stop condition.
        stops: Whether the cell has a function ``should_stop``.
        watched: Metrics that the stop condition names; None for all.
        log: Path of the file that a successor of its process goes on from; None where there can be no successor.
        port: Where its predecessor listened, and so it does; 0 for any.
    """

    scene: Scene
    toward: str = ""
    until: str | None = None
    stops: bool = False
    watched: tuple[str, ...] | None = ()
    log: str | None = None
    port: int = 0


@dataclass(frozen=True)
class Storage:
    """How servers keep their tables.

    Attributes:
        memory: Bytes each server may use; rows of sparse tables beyond go to disk. None: no bound.
        folder: Where they go; where there is no such folder on a server's host, to that for temporary files.
        nan: What a gradient with NaN or an infinity does: ``"stop"`` the run, or ``"skip"`` its rows.
    """

    memory: int | None = None
    folder: str = ""
    nan: str = "stop"


@dataclass(frozen=True)
class ServerJob:
    """What one server does.

    Attributes:
        scene: As above.
        rank: Its rank among the servers.
        coordinator: Where the coordinator listens.
        incarnation: Counts the processes that had this rank.
        toward: As for the coordinator.
        storage: How it keeps its tables.
        tables: Declared so far, as ``TableSpec.to_wire`` made them, where it takes the place of one that died.
    """

    scene: Scene
    rank: int
    coordinator: tuple[str, int]
    incarnation: int = 0
    toward: str = ""
    storage: Storage = Storage()
    tables: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class WorkerJob:
    """What one worker does.

    Attributes:
        scene: As above.
        coordinator: Where the coordinator listens.
        watched: Metrics that go to the coordinator with every clock; None for all.
        decides: Whether the coordinator decides when training ends.
        pull: Variables to send back when ``train`` has returned.
        incarnation: Counts the processes that had this worker's rank.
    """

    scene: Scene
    coordinator: tuple[str, int]
    watched: tuple[str, ...] | None = ()
    decides: bool = False
    pull: Wanted = ()
    incarnation: int = 0


@dataclass(frozen=True)
class WorkerReport:
    """How one worker ended.

    Attributes:
        returned: What ``train`` returned, or None where that cannot be sent.
        parcel: The pulled variables.
        staleness: Pulls by staleness in clocks, by table.
    """

    returned: Any
    parcel: Parcel
    staleness: Mapping[str, Histogram] = field(default_factory=dict)
