"""paibook: one shard of a sparse table, as a server holds it: ``paibook_side KIND KEYS FILE``."""

from __future__ import annotations

import paibook as pai
from benchmarks.keys_jobs import work
from paibook.runtimes.ps.shards import TableSpec
from paibook.runtimes.ps.sparse import SparseTable


class Shard:
    """The shard of a server that is alone."""

    def __init__(self, kind: work.Kind) -> None:
        ftrl, adagrad = pai.FTRL(work.ALPHA, work.BETA), pai.Adagrad(work.LR, work.EPSILON)
        optimizer = {"FTRL": ftrl, "Adagrad": adagrad}[kind.optimizer]
        self.table = SparseTable(TableSpec.declare("table", None, kind.width, True, "float32", optimizer, 0.0), None)

    def push(self, keys: work.Keys, gradient: work.Array) -> None:
        """See ``work.Table``."""
        self.table.apply(keys, gradient)

    def pull(self, keys: work.Keys) -> work.Array:
        """See ``work.Table``."""
        return self.table.read(keys, stable=False)


if __name__ == "__main__":
    work.run(Shard, lambda shard: shard.table.usage()["bytes_in_memory"])
