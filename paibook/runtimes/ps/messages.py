"""What worker, server and driver say to each other: the operations, and the jobs a server and a worker are given."""

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

SERVER_MIME = "application/vnd.paibook.server+json"
GO_ON = 1  # flag of the answer to CLOCK: training continues
WHOLE = 2  # flag of PULL and PUSH: the whole shard, no keys
KNOWN_KEYS = 8  # flag of PULL and PUSH: the keys are those of set ``key_set``, and are not sent
FP16, INT8, TOP_K = 16, 32, 64  # flags of PUSH, the first two of PULL too: gradients or rows go through that filter


class Op(IntEnum):
    """The first byte of a frame."""

    OK = 1
    ERROR = 2  # JSON: the message for the user
    JOIN = 3  # JSON: {"role": "worker" | "driver", "rank": int}
    DECLARE = 4  # JSON: a TableSpec; answered with the table's number
    PULL = 5  # int64 keys, known as ``key_set`` from now on; answered with rows, and the slowest worker's clock
    PUSH = 6  # int64 keys, then gradients
    CLOCK = 7  # this worker has finished a clock; JSON: watched metrics, if any; answered with GO_ON or not
    RETIRE = 8  # this worker's train() has returned; JSON as for CLOCK
    STATUS = 9  # driver: answered with JSON: clock, reason
    DESCRIBE = 10  # driver: answered with JSON: the shards held here
    FETCH = 11  # driver: answered with a shard: keys (sparse) and rows
    SHUTDOWN = 12  # driver: the run is over


@dataclass(frozen=True)
class Scene:
    """What every process of a run is told.

    Attributes:
        run: The run's identifier.
        program: The cell.
        hyperparameters: Seen by the program as ``hp``.
        variables: Pushed notebook variables, by name.
        world_size: Workers.
        servers: Servers.
        consistency: What a pull may miss.
        token: The run's secret; every connection proves that it holds it.
        certificate: The run's, where connections cross hosts and so are encrypted; None on one host.
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


@dataclass(frozen=True)
class ServerJob:
    """What one server does.

    Attributes:
        scene: As above.
        rank: Its rank among the servers; server 0 also decides when training ends.
        toward: A host that must reach it, which tells the address to listen on; empty for loopback.
        until: The stop condition, on server 0 only.
    """

    scene: Scene
    rank: int
    toward: str = ""
    until: str | None = None


@dataclass(frozen=True)
class WorkerJob:
    """What one worker does.

    Attributes:
        scene: As above.
        addresses: The servers' (host, port), in rank order.
        watched: Metrics that the stop condition names; they go to server 0 with every clock.
        pull: Variables to send back when ``train`` has returned.
    """

    scene: Scene
    addresses: tuple[tuple[str, int], ...]
    watched: tuple[str, ...] = ()
    pull: Wanted = ()


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
