"""What the coordinator has decided, and the log from which a successor of its process goes on.

A decision is an entry, a JSON-able value: it is written to the log and forced to disk before anybody hears of it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from paibook.errors import RunError, TableError
from paibook.runtimes.ps.shards import TableSpec
from paibook.runtimes.ps.views import View

Entry = dict[str, Any]
Worker = tuple[int, int]  # rank and incarnation


@dataclass
class DataShards:
    """The data shards of one ``ps.shards`` call, which all workers make alike.

    Attributes:
        count: How many there are.
        done: Those whose clock is finished.
        given: Those that somebody works on, and who.
    """

    count: int
    done: set[int] = field(default_factory=set)
    given: dict[int, Worker] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether all are done."""
        return len(self.done) == self.count

    def next_for(self, worker: Worker) -> int | None:
        """The shard that a worker has already, or the next that nobody has; None where there is none.

        >>> DataShards(3, done={0}, given={1: (5, 0)}).next_for((4, 0))
        2
        """
        held = [shard for shard, holder in self.given.items() if holder == worker]
        free = [shard for shard in range(self.count) if shard not in self.done and shard not in self.given]
        return next(iter([*held, *free]), None)


class Ledger:
    """The coordinator's decisions so far.

    Args:
        path: The log; None keeps none. What is in it already is taken up.
        best: From before the run: by what ``since_best`` is asked of, the least value and its clock.

    Attributes:
        view: The latest.
        incarnations: The latest of each server that was ever in a view, by rank.
        tables: The declared tables, by number.
        reason: Why training is to end.
        began: When the first worker came, in seconds since the epoch.
        committed: The clock to which each worker's rank has come for sure, by ``ps.shards``.
        retired: Ranks whose ``train`` has returned, and their clocks.
        calls: The ``ps.shards`` calls, in their order.
        checkpoint: The clock of the latest one that is whole.
        improvements: By what ``since_best`` is asked of: each value that was less than those before, and its clock.
    """

    def __init__(self, path: str | None, best: Mapping[str, tuple[float, int]] = MappingProxyType({})) -> None:
        self.view: View | None = None
        self.incarnations: dict[int, int] = {}
        self.tables: list[TableSpec] = []
        self.reason: str | None = None
        self.began: float | None = None
        self.committed: dict[int, int] = {}
        self.retired: dict[int, int] = {}
        self.calls: list[DataShards] = []
        self.checkpoint = 0
        self.improvements: dict[str, list[tuple[float, int]]] = {of: [known] for of, known in best.items()}
        for entry in [] if path is None else _read(Path(path)):
            self._take(entry)
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, kind: str, **values: Any) -> None:
        """Decide something: it is on disk when this returns."""
        self.note(kind, **values)
        if self._file is not None:
            os.fsync(self._file)

    def note(self, kind: str, **values: Any) -> None:
        """As ``write``, but not forced to disk: it outlives this process, if not this machine."""
        entry = {"kind": kind, **values}
        if self._file is not None:
            os.write(self._file, json.dumps(entry).encode() + b"\n")
        self._take(entry)

    def close(self) -> None:
        """Close the log."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def table(self, spec: TableSpec) -> int:
        """A table's number, given on its first declaration.

        Raises:
            TableError: It was declared otherwise before.
        """
        for number, known in enumerate(self.tables):
            if known.name == spec.name:
                if difference := known.differs_from(spec):
                    raise TableError(f"table {spec.name!r} was declared before, and differently: now {difference}")
                return number
        self.write("table", spec=spec.to_wire())
        return len(self.tables) - 1

    def shards(self, call: int, count: int) -> DataShards:
        """The data shards of a ``ps.shards`` call.

        Raises:
            TableError: Another worker made the call with another number of them, or a call was left out.
        """
        if call == len(self.calls):
            self.write("shards", count=count)
        known = self.calls[call].count
        if known != count:
            raise TableError(f"ps.shards was called with {count} data shards here and with {known} on another worker")
        return self.calls[call]

    def give(self, call: int, worker: Worker) -> int | None:
        """Give a worker a data shard; None where there is none to give."""
        shards = self.calls[call]
        shard = shards.next_for(worker)
        if shard is not None and shard not in shards.given:
            self.write("given", call=call, shard=shard, rank=worker[0], incarnation=worker[1])
        return shard

    def finish(self, call: int, shard: int, worker: Worker, clock: int) -> None:
        """A data shard is done, and its clock; says nothing where the worker does not have it (any more)."""
        if self.calls[call].given.get(shard) == worker:
            self.write("done", call=call, shard=shard, rank=worker[0], clock=clock)

    def free(self, worker: Worker) -> None:
        """Take back what a worker has and has not done."""
        if any(worker in call.given.values() for call in self.calls):
            self.write("freed", rank=worker[0], incarnation=worker[1])

    def best(self, clock: float = math.inf) -> dict[str, tuple[float, int]]:
        """By what ``since_best`` is asked of: the least value up to a clock, and its own clock.

        >>> Ledger(None, {"loss": (0.5, 3)}).best()
        {'loss': (0.5, 3)}
        """
        until = {of: [known for known in found if known[1] <= clock] for of, found in self.improvements.items()}
        return {of: found[-1] for of, found in until.items() if found}

    def _take(self, entry: Entry) -> None:
        match entry["kind"]:
            case "began":
                self.began = entry["time"]
            case "view":
                self.view = View.from_wire(entry["view"])
                for rank, address in self.view.addresses.items():
                    self.incarnations[rank] = max(address.incarnation, self.incarnations.get(rank, 0))
            case "table":
                self.tables.append(TableSpec.from_wire(entry["spec"]))
            case "stop":
                self.reason = entry["reason"]
            case "retired":
                self.retired[entry["rank"]] = entry["clock"]
            case "shards":
                self.calls.append(DataShards(entry["count"]))
            case "given":
                self.calls[entry["call"]].given[entry["shard"]] = (entry["rank"], entry["incarnation"])
            case "freed":
                worker = (entry["rank"], entry["incarnation"])
                for call in self.calls:
                    call.given = {shard: holder for shard, holder in call.given.items() if holder != worker}
            case "done":
                shards = self.calls[entry["call"]]
                shards.done.add(entry["shard"])
                shards.given.pop(entry["shard"], None)
                self.committed[entry["rank"]] = max(entry["clock"], self.committed.get(entry["rank"], 0))
            case "checkpoint":
                self.checkpoint = entry["clock"]
            case "best":
                self.improvements.setdefault(entry["of"], []).append((entry["value"], entry["clock"]))
            case kind:
                raise RunError(f"the coordinator's log has an entry of kind {kind!r}, which is not one")


def _read(path: Path) -> list[Entry]:
    """A log's entries; a last line that was cut off is taken away: nobody had heard of it."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines()]
