"""The replication protocol as a model, all of whose interleavings are tried for small sizes.

A state is a value; a step is one process doing one thing: a worker sends a push, a message arrives, a server dies, the
coordinator names the next view, a server or a worker hears of it, a copy is sent. What ``partition.py``, ``chain.py``
and ``links.py`` do is done here in a few lines each, so that what they rely on can be seen to hold: no acknowledged
push is ever lost, none is done twice, and all are acknowledged in the end. Chains are of two servers; that a copy is
moved from one server to another that has less to do (``views.py``) is left out. A primary may be asked to change places
with its backup: it steps down, which cuts it from the worker, and then the coordinator names the view.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

Log = tuple[int, ...]


@dataclass(frozen=True)
class Server:
    """``done`` is the order in which pushes were applied, and what a copy takes over; ``view`` the last heard of."""

    alive: bool = True
    done: Log = ()
    view: int = 0
    confirmed: int = 0  # operations that the rest of the chain has
    linked: int | None = None  # the successor that operations are passed on to
    copy: int = 0  # operations in the copy that the successor was given
    waits: bool = False  # whether a push is acknowledged only once the successor has it
    asked: int | None = None  # operations that the successor must have before it counts as a backup
    source: int | None = None  # the predecessor that operations are taken from
    stepped: int = -1  # the view in which it stepped down as the primary
    owed: Log = ()  # pushes to be acknowledged once confirmed, with the length of ``done`` then


@dataclass(frozen=True)
class View:
    chain: tuple[int, ...]
    building: int | None = None


@dataclass(frozen=True)
class State:
    servers: tuple[Server, ...]
    views: tuple[View, ...]
    sent: int = 0  # pushes sent by the worker at least once
    acknowledged: int = 0
    worker_view: int = 0
    links: tuple[
        tuple[tuple[str, int, int], Log], ...
    ] = ()  # what is on its way: (kind, from, to) and messages in order
    crashes: int = 0
    moves: int = 0
    told: bool = False  # whether the coordinator has heard that the server being built has everything

    def link(self, kind: str, a: int, b: int) -> Log:
        return dict(self.links).get((kind, a, b), ())

    def put(self, kind: str, a: int, b: int, messages: Log) -> State:
        links = {**dict(self.links), (kind, a, b): messages}
        return replace(self, links=tuple(sorted((key, found) for key, found in links.items() if found)))

    def send(self, kind: str, a: int, b: int, message: int) -> State:
        return self.put(kind, a, b, (*self.link(kind, a, b), message))

    def with_server(self, number: int, **changes: object) -> State:
        server = replace(self.servers[number], **changes)  # type: ignore[arg-type]
        return replace(self, servers=(*self.servers[:number], server, *self.servers[number + 1 :]))

    def without(self, number: int) -> State:
        """Without what was on its way to or from a server that died."""
        links = tuple((key, found) for key, found in self.links if number not in key[1:])
        return replace(self, links=links)


WORKER = -1


@dataclass(frozen=True)
class Protocol:
    """What is tried: ``broken`` leaves out one rule, to see that the search finds what it is for."""

    servers: int
    pushes: int
    crashes: int
    broken: str = ""
    moves: int = 0  # primaries that change places with their backups

    def start(self) -> State:
        # A server that answers has heard of its view, and so waits for its follower from the first push on.
        servers = tuple(
            Server(waits=number == 0 and self.broken != "acknowledges at once") for number in range(self.servers)
        )
        return State(servers, (View(tuple(range(min(2, self.servers)))),))

    def steps(self, state: State) -> Iterator[State]:
        yield from self._worker(state)
        yield from self._coordinator(state)
        if state.servers[state.views[-1].chain[0]].alive:
            yield from self._steps_down(state)
        for number, server in enumerate(state.servers):
            if server.alive:
                yield from self._hears_view(state, number)
                yield from self._passes_on(state, number)
                yield from self._counts_on(state, number)
                yield from self._takes(state, number)
                if state.crashes < self.crashes and self._survivable(state, number):
                    yield replace(state.with_server(number, alive=False), crashes=state.crashes + 1).without(number)

    def _survivable(self, state: State, number: int) -> bool:
        """Whether a copy is left: one that the newest view counts on."""
        return any(state.servers[other].alive for other in state.views[-1].chain if other != number)

    def _worker(self, state: State) -> Iterator[State]:
        primary = state.views[state.worker_view].chain[0]
        gone = not state.servers[primary].alive or state.servers[primary].stepped >= state.worker_view
        if state.sent < self.pushes and not gone:
            push = state.sent + 1
            yield replace(state.send("push", WORKER, primary, push), sent=push)
        if state.worker_view < len(state.views) - 1 and gone:
            after = state.worker_view + 1
            fresh = replace(state, worker_view=after)
            now = state.views[after].chain[0]
            if now != primary or state.servers[primary].alive:
                for push in range(state.acknowledged + 1, state.sent + 1):
                    fresh = fresh.send("push", WORKER, now, push)
            yield fresh
        for number in range(self.servers):
            if found := state.link("ack", number, WORKER):
                taken = state.put("ack", number, WORKER, found[1:])
                yield replace(taken, acknowledged=max(state.acknowledged, found[0]))

    def _coordinator(self, state: State) -> Iterator[State]:
        view = state.views[-1]
        dead = [s for s in (*view.chain, view.building) if s is not None and not state.servers[s].alive]
        if dead:
            chain = tuple(server for server in view.chain if server not in dead)
            if not chain:
                return
            building = None if view.building in dead else view.building
            spare = [s for s, server in enumerate(state.servers) if server.alive and s not in chain]
            if building is None and spare and len(chain) < 2:
                building = spare[0]
            yield replace(state, views=(*state.views, View(chain, building)), told=False)
        elif self._stepped_down(state) and len(view.chain) == 2 and view.building is None:
            yield replace(state, views=(*state.views, View((view.chain[1], view.chain[0]))))
        elif state.told and view.building is not None:
            yield replace(state, views=(*state.views, View((*view.chain, view.building))), told=False)

    def _stepped_down(self, state: State) -> bool:
        return state.servers[state.views[-1].chain[0]].stepped == len(state.views) - 1

    def _steps_down(self, state: State) -> Iterator[State]:
        """The newest view's primary, which has heard of it, answers no more; the worker's connection breaks."""
        view = state.views[-1]
        primary, newest = view.chain[0], len(state.views) - 1
        whole = len(view.chain) == 2 and view.building is None
        if state.moves < self.moves and whole and state.servers[primary].view == newest:
            stepped = state.with_server(primary, stepped=newest, owed=())
            stepped = stepped.put("push", WORKER, primary, ()).put("ack", primary, WORKER, ())
            yield replace(stepped, moves=state.moves + 1)

    def _answers(self, state: State, number: int) -> bool:
        server = state.servers[number]
        return state.views[server.view].chain[0] == number and server.stepped != server.view

    def _hears_view(self, state: State, number: int) -> Iterator[State]:
        server = state.servers[number]
        if server.view == len(state.views) - 1 and server.linked is not None:
            return
        after = min(server.view + 1, len(state.views) - 1) if server.view else len(state.views) - 1
        view = state.views[after]
        whole = (*view.chain, *(() if view.building is None else (view.building,)))
        if number not in whole:
            if after != server.view:
                yield state.with_server(number, view=after)
            return
        place = whole.index(number) + 1
        follower = whole[place] if place < len(whole) else None
        changed = state.with_server(number, view=after)
        if number == view.chain[0] and server.source is not None:  # it breaks off what comes along the chain
            changed = changed.put("chain", server.source, number, ()).put("done", number, server.source, ())
            changed = changed.with_server(number, source=None).with_server(server.source, linked=None)
        if follower is None:
            changed = self._settle(changed.with_server(number, linked=None, waits=False), number, len(server.done))
        elif follower != server.linked:
            changed = changed.with_server(number, linked=None, waits=follower in view.chain)
            if self.broken == "acknowledges at once":
                changed = changed.with_server(number, waits=False)
        if changed != state:
            yield changed
        # The link to the follower: a copy of everything, and from then on every operation.
        linked = changed.servers[number]
        if follower is not None and linked.linked is None and state.servers[follower].alive:
            taker = changed.servers[follower]
            if not (taker.view and self._answers(state, follower)):
                copied = changed.put("chain", number, follower, ()).put("done", follower, number, ())
                copied = copied.with_server(follower, source=number, done=linked.done, owed=(), confirmed=0)
                copied = copied.with_server(number, linked=follower, copy=len(linked.done), asked=None)
                yield self._settle(copied, number, len(linked.done))

    def _counts_on(self, state: State, number: int) -> Iterator[State]:
        """The successor has its copy: pushes wait for it, and when it has those before too, the coordinator hears."""
        server = state.servers[number]
        if server.linked is None or server.linked != state.views[-1].building or server.confirmed < server.copy:
            return
        if server.asked is None:
            everything = server.copy if self.broken == "forgets what is on its way" else len(server.done)
            yield state.with_server(number, waits=self.broken != "acknowledges at once", asked=everything, copy=0)
        elif server.confirmed >= server.asked:
            yield replace(state, told=True)

    def _passes_on(self, state: State, number: int) -> Iterator[State]:
        """The follower says how much it has done; acknowledgements go up the chain, and to the worker."""
        server = state.servers[number]
        if server.linked is not None and (found := state.link("done", server.linked, number)):
            taken = state.put("done", server.linked, number, found[1:])
            yield self._settle(taken, number, found[0])

    def _settle(self, state: State, number: int, confirmed: int) -> State:
        """Acknowledge what is confirmed."""
        server = state.servers[number]
        settled = max(server.confirmed, confirmed)
        state = state.with_server(number, confirmed=settled)
        pairs = list(zip(server.owed[::2], server.owed[1::2], strict=True))
        for push, length in pairs:
            if length <= settled:
                state = self._acknowledge(state, number, push, length)
        rest = [value for pair in pairs if pair[1] > settled for value in pair]
        return state.with_server(number, owed=tuple(rest))

    def _acknowledge(self, state: State, number: int, push: int, length: int) -> State:
        source = state.servers[number].source
        if source is None:
            return state.send("ack", number, WORKER, push)
        return state.send("done", number, source, length) if state.servers[source].alive else state

    def _takes(self, state: State, number: int) -> Iterator[State]:
        """A push arrives, from the worker or along the chain."""
        server = state.servers[number]
        if (found := state.link("push", WORKER, number)) and self._answers(state, number):
            yield self._do(state.put("push", WORKER, number, found[1:]), number, found[0])
        if server.source is not None and (found := state.link("chain", server.source, number)):
            taken = state.put("chain", server.source, number, found[1:])
            if not (server.view and self._answers(state, number)):  # a primary takes nothing from before its time
                yield self._do(taken, number, found[0])

    def _do(self, state: State, number: int, push: int) -> State:
        server = state.servers[number]
        last = max(server.done, default=0)
        if push > last or self.broken == "does everything it is sent":
            state = state.with_server(number, done=(*server.done, push))
            if server.linked is not None and state.servers[server.linked].alive:
                state = state.send("chain", number, server.linked, push)
        length = len(state.servers[number].done)
        if server.waits and state.servers[number].confirmed < length:
            return state.with_server(number, owed=(*server.owed, push, length))
        return self._acknowledge(state, number, push, length)


def violation(protocol: Protocol, state: State) -> str:
    """What is wrong with a state; empty when nothing is."""
    for number, server in enumerate(state.servers):
        if len(set(server.done)) < len(server.done):
            return f"server {number} did a push twice: {server.done}"
        if server.done != tuple(sorted(server.done)):
            return f"server {number} did pushes out of order: {server.done}"
    answering = [s for s in state.views[-1].chain if state.servers[s].alive]
    if answering:
        safe = set(state.servers[answering[0]].done)
        if not set(range(1, state.acknowledged + 1)) <= safe:
            return f"push {state.acknowledged} is acknowledged, and server {answering[0]} has {sorted(safe)}"
    return ""


def explore(protocol: Protocol) -> tuple[int, list[State], str]:
    """All reachable states: how many, those from which nothing goes on, and what is wrong with the first bad one."""
    start = protocol.start()
    seen, waiting, ends = {start}, deque([start]), []
    while waiting:
        state = waiting.popleft()
        if wrong := violation(protocol, state):
            return len(seen), ends, wrong
        after = [step for step in protocol.steps(state) if step != state]
        if not after:
            ends.append(state)
        for step in after:
            if step not in seen:
                seen.add(step)
                waiting.append(step)
    return len(seen), ends, ""


@pytest.mark.parametrize(
    ("servers", "pushes", "crashes", "moves"), [(2, 3, 1, 0), (3, 2, 1, 0), (3, 2, 2, 0), (2, 2, 0, 2), (2, 2, 1, 1)]
)
def test_no_acknowledged_push_is_lost_and_none_is_done_twice(
    servers: int, pushes: int, crashes: int, moves: int
) -> None:
    protocol = Protocol(servers, pushes, crashes, moves=moves)
    count, ends, wrong = explore(protocol)
    assert wrong == ""
    assert count > 500
    assert ends
    for state in ends:  # nothing stops half way: every push was acknowledged
        assert state.acknowledged == pushes, state


@pytest.mark.parametrize(
    ("broken", "servers", "crashes"),
    [
        ("acknowledges at once", 2, 1),
        ("does everything it is sent", 2, 1),
        ("forgets what is on its way", 3, 2),
    ],
)
def test_the_search_finds_what_a_rule_is_for(broken: str, servers: int, crashes: int) -> None:
    _, _, wrong = explore(Protocol(servers, 2, crashes, broken))
    assert ("twice" if "everything" in broken else "acknowledged") in wrong
