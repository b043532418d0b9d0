"""The line magics ``%pai_ranks`` and ``%pai_debug``: looking into the ranks between cells."""

from __future__ import annotations

from typing import Any

from IPython.core.error import StdinNotImplementedError

from paibook.errors import PlanError
from paibook.runtimes.inspection import ANSWER_SECONDS, Holding, check_idle, debug, holding, on_ranks, workers
from paibook.session import Session
from paibook_magics.lines import table, words
from paibook_magics.sizes import format_bytes

RANKS_HELP = """Show the ranks that cells run on.

  %pai_ranks                     host, process, memory, cards and state of each
  %pai_ranks vars                the variables that cells left on each: type and size
"""

DEBUG_HELP = """Look around where the last cell failed on a rank, with the commands of pdb.

  %pai_debug 1                   a prompt in the frame that raised on rank 1: p x, w, u, d, l, a, ...; q ends it
  %pai_debug 1 -c "p x" "w"      these commands, without a prompt
"""
_QUITS = {"q", "quit", "exit", "EOF"}


class RankLines:
    """The line magics about ranks of one notebook."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def ranks(self, line: str) -> Any:
        """Run ``%pai_ranks LINE``."""
        if words(line) not in ([], ["vars"]):
            raise PlanError(f"%pai_ranks {line}: not understood\n\n{RANKS_HELP}")
        there = workers(self._session.cluster)
        if not there:
            print("no ranks yet; the first %%pai_allreduce or %%pai_ps cell starts them")
            return None
        found = on_ranks(self._session.cluster, holding)
        if words(line):
            return self._variables(found)
        rows = [(s.rank, s.host, s.pid, s.state, *_own(found.get(s.rank))) for s in there]
        return table(rows, columns=["rank", "host", "pid", "state", "memory", "devices", "variables"]).set_index("rank")

    def _variables(self, found: dict[int, Holding]) -> Any:
        names = sorted({variable.name for held in found.values() for variable in held.variables})
        by_rank = {
            rank: {v.name: f"{v.kind}, {format_bytes(v.bytes)}" for v in held.variables} for rank, held in found.items()
        }
        rows = [(name, *(by_rank[rank].get(name, "") for rank in found)) for name in names]
        return table(rows, columns=["variable", *(f"rank {rank}" for rank in found)]).set_index("variable")

    def debug(self, line: str) -> None:
        """Run ``%pai_debug LINE``."""
        match words(line):
            case [rank] if rank.isdecimal():
                self._prompt(int(rank))
            case [rank, "-c", *commands] if rank.isdecimal() and commands:
                check_idle(self._session.cluster, int(rank))
                print(self._debug(int(rank), commands), end="")
            case _:
                raise PlanError(f"%pai_debug {line}: not understood\n\n{DEBUG_HELP}")

    def _prompt(self, rank: int) -> None:
        check_idle(self._session.cluster, rank)
        print(self._debug(rank, ["w"]), end="")
        while True:
            try:
                command = input(f"rank {rank} (pdb) ").strip()
            except EOFError:
                return
            except StdinNotImplementedError:
                raise PlanError(f"nobody can type here; write the commands: %pai_debug {rank} -c w 'p x'") from None
            if command in _QUITS:
                return
            if command:
                print(self._debug(rank, [command]), end="")

    def _debug(self, rank: int, commands: list[str]) -> str:
        try:
            found = on_ranks(self._session.cluster, debug, commands, ranks=[rank])
        except TimeoutError:
            said = f"rank {rank} has not answered in {ANSWER_SECONDS:.0f} s; `%pai_cluster restart` ends what it does"
            raise PlanError(said) from None
        if rank not in found:
            raise PlanError(f"rank {rank} is busy with a cell or was lost")
        return found[rank]


def _own(held: Holding | None) -> tuple[str, str, str]:
    if held is None:  # busy or lost
        return "", "", ""
    return format_bytes(held.memory), ", ".join(held.devices) or "cpu", str(len(held.variables))
