"""What a parameter-server run leaves behind: the model, and why training ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paibook.errors import RunError
from paibook.runtimes.ps.staleness import Histogram, describe


@dataclass(frozen=True)
class PSResult:
    """The end of a run.

    Attributes:
        clock: Clocks finished.
        reason: Why training ended.
        returned: What ``train`` returned, by rank.
        size: Bytes of all tables.
        pulled: Values of the pulled variables, by name.
        differs: Pulled names whose values disagree between workers.
        staleness: By table, a histogram for each worker in rank order: staleness in clocks to number of pulls.
        shards: How each shard stood at the end: table, server, rows, rows and bytes in memory and on disk, and rows of
            gradients skipped.
    """

    clock: int
    reason: str
    returned: tuple[Any, ...] = ()
    size: int = 0
    pulled: Mapping[str, Any] = field(default_factory=dict)
    differs: frozenset[str] = frozenset()
    staleness: Mapping[str, tuple[Histogram, ...]] = field(default_factory=dict)
    shards: tuple[Mapping[str, Any], ...] = ()
    _tables: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def tables(self) -> Mapping[str, Any]:
        """Name to weights: an array when dense, (keys, rows) sorted by key when sparse.

        Raises:
            RunError: The tables were too large to be fetched.
        """
        if self._tables is None:
            raise RunError(
                f"the tables hold {self.size / 2**20:.0f} MiB, more than is brought to the notebook; let train() pull "
                "what you need and return it, or save it from a worker"
            )
        return self._tables

    def __repr__(self) -> str:
        lines = [f"{self.clock} clocks; training ended: {self.reason}"]
        if self._tables is None:
            lines.append(f"  tables of {self.size / 2**20:.0f} MiB, not fetched")
        for name, value in (self._tables or {}).items():
            sparse = isinstance(value, tuple)
            what = f"{len(value[0])} keys, rows of {value[1].shape[1]}" if sparse else f"shape {value.shape}"
            lines.append(f"  table {name!r}: {what}, {(value[1] if sparse else value).dtype}")
        for shard in self.shards:
            if shard["rows_on_disk"]:
                lines.append(
                    f"  server {shard['server']}: {shard['rows_on_disk']} of {shard['rows']} rows of "
                    f"{shard['table']!r} on disk, {shard['bytes_on_disk'] / 2**20:.0f} MiB"
                )
        lines.extend(f"  {line}" for line in describe(self.staleness))
        return "\n".join(lines)
