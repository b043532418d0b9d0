"""``pai.state``: what a cell trains, kept in snapshots, so that the death of a rank does not cost the training.

The model is that of Horovod Elastic (``hvd.elastic.State``, ``commit``) and of torchelastic (restart from a snapshot):
the cell runs again on all ranks, and ``pai.state`` gives back the last snapshot that all of them had committed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np

from paibook.comms.messages import Message, pack, unpack
from paibook.comms.operators import IN_PLACE, MAX
from paibook.comms.torchrun import imported
from paibook.errors import ProgramError
from paibook.runtimes.allreduce.keeper import SHARED, Address, Keeper, Kept, Mark, PeerKeeper, Recovery
from paibook.runtimes.allreduce.snapshots import Checkpoints, portable, put_back


class Regroup(BaseException):
    """Ends the cell on a rank at a commit, so that it goes on in a new group; no ``Exception``: few catch it."""


@dataclass
class Seat:
    """A rank's place in the cell that runs, as ``pai.state`` needs it.

    Attributes:
        rank, size, comm: This rank's number, how many there are, and their communicator.
        keeper: This rank's.
        keepers: Addresses of all ranks' keepers; empty where the ranks share a process and end together.
        token: What lets ranks into each other's keepers.
        attempt: Number of this attempt at running the cell.
        recovery: The snapshot to go on from.
        announce: Called when the cell registers a state.
        asked: Whether this rank was asked to leave at its next commit.
        state: What the cell has registered.
        over: Whether the cell has ended.
    """

    rank: int
    size: int
    comm: Any  # stands for a ``Communicator``
    keeper: Keeper
    keepers: Sequence[Address] = ()
    token: bytes = field(default=b"", repr=False)
    attempt: int = 0
    recovery: Recovery | None = None
    announce: Callable[[], None] = lambda: None
    asked: Callable[[], bool] = lambda: False
    state: State | None = None
    over: bool = False

    def kept(self) -> Kept | None:
        """What is kept here; None where the cell has registered nothing and began with nothing."""
        if self.state is None and self.recovery is None:
            return None
        return self.keeper.kept(None if self.state is None else self.state._step)

    def peer(self, rank: int) -> PeerKeeper:
        """Another rank's keeper."""
        return PeerKeeper(rank, self.keepers[rank], self.token)


_current: ContextVar[Seat | None] = ContextVar("paibook_seat", default=None)
_process: Seat | None = None


@contextmanager
def seated(seat: Seat, whole_process: bool) -> Iterator[None]:
    """Let ``pai.state`` find its rank in this context, or in every thread of the process."""
    global _process
    token = _current.set(seat)
    previous = _process
    if whole_process:
        _process = seat
    try:
        yield
    finally:
        _current.reset(token)
        if whole_process:
            _process = previous
        seat.over = True
        if seat.state is not None:
            seat.state._end()


def state(*, per_rank: Collection[str] = (), folder: str | os.PathLike[str] | None = None, **entries: Any) -> State:
    """Register what the cell trains; after a rank's death this gives back the last snapshot all ranks had committed.

    Collective: every rank calls it, once a cell.

    Args:
        per_rank: Names of entries that each rank has one of its own of; the others are the same on all ranks. On a
            group of another size such an entry is a dict: by old rank, what that rank had.
        folder: Also write each commit there, and go on from what a run before has written; all ranks see it.
        **entries: torch modules, optimizers and schedulers (anything with ``state_dict``), arrays, tensors, and any
            object that pickles. Arrays and tensors are given back in place, other objects as attributes.

    Raises:
        ProgramError: Outside a ``%%pai_allreduce`` cell, a second time in one, or with a name that cannot be.

    >>> import paibook as pai
    >>> pai.state(step=0)
    Traceback (most recent call last):
    ...
    paibook.errors.ProgramError: pai.state works in a %%pai_allreduce cell; here is no rank to keep the state of
    """
    seat = _current.get() or _process
    if seat is None:
        raise ProgramError("pai.state works in a %%pai_allreduce cell; here is no rank to keep the state of")
    if seat.state is not None:
        raise ProgramError("this cell has a state; register everything in one pai.state(...)")
    _check_names(entries, per_rank)
    made = State(seat, entries, frozenset(per_rank), None if folder is None else Checkpoints(folder))
    seat.state = made
    seat.announce()
    made._begin()
    return made


class State:
    """Entries by name, as attributes; ``commit`` takes a snapshot of them."""

    def __init__(
        self, seat: Seat, entries: Mapping[str, Any], per_rank: frozenset[str], checkpoints: Checkpoints | None
    ) -> None:
        # Past __setattr__, which is for the entries.
        self.__dict__.update(
            _seat=seat, _entries=dict(entries), _per_rank=per_rank, _checkpoints=checkpoints, _commits=0, _next=None
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_entries"][name]
        except KeyError:
            raise AttributeError(f"the state has no entry {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._entries:
            raise AttributeError(f"the state has no entry {name!r}; register it: pai.state({name}=...)")
        self._entries[name] = value

    def __repr__(self) -> str:
        return f"<state of {', '.join(self._entries)}; commit {self._commits - 1}>"

    def commit(self, **changes: Any) -> None:
        """Take a snapshot. Collective: every rank calls it at the same place of the training.

        At the top of a loop over steps, the snapshot holds the step that comes next; at its end, say so with
        ``commit(step=state.step + 1)``.

        Args:
            **changes: Entries to keep with these values instead; the state itself keeps the ones it has.
        """
        if self._seat.over:
            raise ProgramError("this state belongs to a cell that has ended; call pai.state(...) in this one")
        _check_known(changes, self._entries)
        if self._take({**self._entries, **changes}):
            raise Regroup

    @property
    def _step(self) -> int | None:
        return _step_of(self._entries)

    def _begin(self) -> None:
        """Go on from a snapshot if there is one, and make it this group's own first."""
        seat = self._seat
        if seat.recovery is not None:
            self._restore(seat.recovery)
        elif self._checkpoints is not None:
            self._resume(self._checkpoints)
        self._take(self._entries)
        seat.keeper.drop(seat.attempt)  # all ranks have the new ones

    def _end(self) -> None:
        if self._next is not None:
            self._next.close()

    def _take(self, values: Mapping[str, Any]) -> bool:
        """Take a snapshot; returns whether the ranks are to leave: all of them, if any was asked to."""
        seat = self._seat
        torch = imported("torch") is not None
        mark = Mark(seat.attempt, self._commits, seat.size, _step_of(values), bool(self._per_rank), torch)
        kept = {name: portable(value) for name, value in values.items()}
        own = {name: kept.pop(name) for name in self._per_rank}
        part = pack(own, seat.token)
        seat.keeper.put(mark, SHARED, pack(kept, seat.token))
        seat.keeper.put(mark, seat.rank, part)
        if len(seat.keepers) > 1:
            self._hand_on(mark, part)
        if self._checkpoints is not None:
            self._write(self._checkpoints, mark, kept, own)
        # Nobody goes on before all have the snapshot: then no rank is ever two ahead of another, and two are enough.
        leave = np.array([seat.asked()], np.int32)
        if seat.size > 1:
            seat.comm.Allreduce(IN_PLACE, leave, MAX)
        if self._checkpoints is not None and seat.rank == 0:
            self._checkpoints.publish(mark.commit, mark.step, mark.size)
        self.__dict__["_commits"] += 1
        return bool(leave[0])

    def _hand_on(self, mark: Mark, part: Message) -> None:
        if self._next is None:
            self.__dict__["_next"] = self._seat.peer((self._seat.rank + 1) % self._seat.size)
        self._next.put(mark, self._seat.rank, part)

    def _write(self, checkpoints: Checkpoints, mark: Mark, kept: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        if self._seat.rank == 0:
            checkpoints.write(mark.commit, "shared", kept)
        if own:
            checkpoints.write(mark.commit, f"rank-{self._seat.rank}", own)

    def _restore(self, recovery: Recovery) -> None:
        mark, token = recovery.mark, self._seat.token
        values = unpack(self._find(mark, SHARED, recovery.shared), token)
        if self._per_rank:
            parts = _dealt(self._seat.rank, self._seat.size, mark.size)
            found = {old: unpack(self._find(mark, old, recovery.parts[old]), token) for old in parts}
            values |= _own_entries(self._per_rank, found, mark.size == self._seat.size)
        self._put_back(values, mark.commit)

    def _find(self, mark: Mark, owner: int, holder: int) -> Message:
        message = self._seat.keeper.get(mark, owner)
        if message is not None:
            return message.copy()  # what is unpacked are views, which the cell will write to
        peer = self._seat.peer(holder)
        try:
            return peer.get(mark, owner)
        finally:
            peer.close()

    def _resume(self, checkpoints: Checkpoints) -> None:
        latest = checkpoints.latest()
        # All read what is there before rank 0 goes on to write over it.
        latest = self._seat.comm.bcast(latest) if self._seat.size > 1 else latest
        if latest is None:
            return
        commit, size = latest["commit"], latest["size"]
        values = checkpoints.read(commit, "shared")
        if self._per_rank:
            parts = _dealt(self._seat.rank, self._seat.size, size)
            found = {old: checkpoints.read(commit, f"rank-{old}") for old in parts}
            values |= _own_entries(self._per_rank, found, size == self._seat.size)
        self._put_back(values, commit)
        if self._seat.rank == 0:
            at = f" (step {latest['step']})" if latest["step"] is not None else ""
            print(f"training goes on from commit {commit}{at} of the checkpoint folder", flush=True)

    def _put_back(self, values: Mapping[str, Any], commit: int) -> None:
        if values.keys() != self._entries.keys():
            raise ProgramError(
                f"the snapshot has {', '.join(sorted(values))}; pai.state was given {', '.join(sorted(self._entries))}"
            )
        for name, kept in values.items():
            self._entries[name] = put_back(self._entries[name], kept)
        self.__dict__["_commits"] = commit


def _dealt(rank: int, size: int, old_size: int) -> range:
    """Old ranks whose own entries go to a rank: its own number, or every size-th from it on."""
    return range(rank, rank + 1) if size == old_size else range(rank, old_size, size)


def _own_entries(names: Collection[str], found: Mapping[int, Mapping[str, Any]], same_size: bool) -> dict[str, Any]:
    if same_size:
        (values,) = found.values()
        return dict(values)
    return {name: {old: values[name] for old, values in found.items()} for name in names}


def _step_of(values: Mapping[str, Any]) -> int | None:
    step = values.get("step")
    return int(step) if isinstance(step, Integral) else None


def _check_names(entries: Mapping[str, Any], per_rank: Collection[str]) -> None:
    if isinstance(per_rank, str):
        raise ProgramError(f"pai.state(per_rank=...) takes a list of names; got the text {per_rank!r}")
    _check_known(per_rank, entries)
    wrong = [name for name in entries if name == "commit" or name.startswith("_")]
    if wrong:
        raise ProgramError(f"pai.state: an entry cannot be called {wrong[0]!r}")


def _check_known(names: Collection[str], entries: Mapping[str, Any]) -> None:
    unknown = [name for name in names if name not in entries]
    if unknown:
        raise ProgramError(f"the state has no entry {unknown[0]!r}; it has {', '.join(entries)}")
