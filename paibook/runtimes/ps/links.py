"""A worker's connections: to every server of the present view, and what it has asked of them and not heard yet.

Requests to a server are answered by number. Pushes are numbered by partition and acknowledged up to a number; one
that is not acknowledged is kept, and sent again to whoever answers for its partition when a server dies.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from paibook.comms.ready import ready
from paibook.comms.shared_channel import take_up
from paibook.comms.wire import ChannelClosed, HandshakeError, Header, Security, connect
from paibook.errors import RunError, TableError
from paibook.runtimes.ps.coordinator_link import CoordinatorLink
from paibook.runtimes.ps.messages import MASK, PUSHED, Op
from paibook.runtimes.ps.server_link import Buffers, Request, ServerLink, size_of
from paibook.runtimes.ps.views import View

WINDOW = 256  # pushes that may wait for their acknowledgement
WINDOW_BYTES = 64 << 20  # and what they may hold, where they are kept to be sent again
FAIL_OVER_SECONDS = 60.0  # for a dead server's partitions to be answered for by others


@dataclass
class Window:
    """The pushes to one partition that are not acknowledged.

    Attributes:
        sent: Number of the last.
        acknowledged: Number of the last acknowledged.
        kept: Those between: number, header, buffers (empty where nothing is to be sent again), bytes.
    """

    sent: int = 0
    acknowledged: int = 0
    kept: deque[tuple[int, Header, Buffers, int]] = field(default_factory=deque)


class Links:
    """The servers as one worker reaches them. For one thread.

    Args:
        coordinator: Knows the views.
        token: The run's.
        replicas: 0 where a server's death cannot be made good.
        security: The run's, where connections are encrypted.

    Attributes:
        base: The clock at which this worker's process began.
        clock: The one it is in.
        retired: Whether its rank had left the run before.
        refusals: What servers refused, in their words.
    """

    def __init__(
        self, coordinator: CoordinatorLink, token: bytes, replicas: int, security: Security | None = None
    ) -> None:
        self._security = security
        self._coordinator = coordinator
        self._token = token
        self._keeps = replicas > 0
        self._links: dict[int, ServerLink] = {}
        self._last: dict[int, ServerLink] = {}  # by partition: where its pushes went
        self._again: list[Request] = []  # what servers that died had not answered
        self._held = 0
        self._heard = coordinator.clock
        self.retired = coordinator.retired
        self.refusals: list[str] = []
        self._view = self._wait_for_view()
        self._windows = [Window() for _ in self._view.primaries]
        try:
            self._join()
        except BaseException:
            self.close()
            raise

    @property
    def partitions(self) -> int:
        """How many there are."""
        return len(self._windows)

    @property
    def view(self) -> View:
        """The present one."""
        return self._view

    def ask(self, requests: Iterable[Request]) -> None:
        """Ask, each the primary of its partition, and do not wait."""
        for request in requests:
            assert request.partition is not None
            self._make_room(request.partition, size_of(request.buffers))
            self._send(self._primary(request.partition), request)

    def wait_for_answers(self, requests: Iterable[Request]) -> None:
        """Block until all of them are answered."""
        asked = list(requests)
        self._wait(lambda: all(request.answer is not None for request in asked))

    def ask_everyone(self, op: Op) -> None:
        """Ask every server, and wait until each has answered or is dead."""
        asked = []
        for link in list(self._links.values()):
            request = Request(Header(op, clock=self.clock))
            if self._links.get(link.rank) is link:
                self._send(link, request)
            else:  # it died meanwhile, and its successor was told
                request.answer = Header(Op.OK)
            asked.append(request)
        self._wait(lambda: all(request.answer is not None for request in asked))

    def push(self, partition: int, header: Header, buffers: Buffers, shared: bool) -> int:
        """Send a push; returns its number in its partition.

        Args:
            shared: Whether somebody else may change the last buffer, the gradient, later.
        """
        self._make_room(partition, size_of(buffers))
        window = self._windows[partition]
        window.sent = window.sent % MASK + 1
        size = size_of(buffers) if self._keeps else 0
        if self._keeps and shared and isinstance(buffers[-1], np.ndarray):
            buffers = (*buffers[:-1], buffers[-1].copy())
        header = header._replace(sequence=window.sent)
        window.kept.append((window.sent, header, buffers if self._keeps else (), size))
        self._held += size
        try:
            self._primary(partition).send(header, *buffers)
        except ChannelClosed as error:
            self._recover(error)
        self._wait(lambda: sum(len(w.kept) for w in self._windows) <= WINDOW and self._held <= WINDOW_BYTES)
        return window.sent

    def acknowledged(self, partition: int, number: int) -> bool:
        """Whether a push is where it has to be."""
        return all(number != kept[0] for kept in self._windows[partition].kept)

    def wait_for(self, pushes: Iterable[tuple[int, int]]) -> None:
        """Block until pushes, as (partition, number), are acknowledged."""
        waiting = list(pushes)
        self._wait(lambda: all(self.acknowledged(*push) for push in waiting))

    def check(self) -> None:
        """Raise what a server refused.

        Raises:
            TableError: In its words.
        """
        if self.refusals:
            refusal = self.refusals[0]
            self.refusals.clear()
            raise TableError(refusal)

    def flush(self) -> None:
        """Block until every push is acknowledged."""
        self._wait(lambda: not any(window.kept for window in self._windows))

    def tick(self, clock: int) -> None:
        """Tell every server that this worker has come to ``clock``."""
        self.clock = clock
        for link in list(self._links.values()):
            if self._links.get(link.rank) is link:  # else it died meanwhile, and its successor was told
                try:
                    link.send(Header(Op.CLOCK, clock=clock))
                except ChannelClosed as error:
                    self._recover(error)

    def refresh(self, number: int) -> None:
        """Take up the coordinator's view where it is newer than ours."""
        if number > self._view.number:
            try:
                self._follow(self._coordinator.view(self._view.number))
            except (ChannelClosed, HandshakeError) as error:
                self._recover(ChannelClosed(str(error)))

    def close(self) -> None:
        """End the connections."""
        for link in self._links.values():
            link.channel.close()

    def _wait_for_view(self) -> View:
        while (view := self._coordinator.view(0)) is None:
            pass
        return view

    def _join(self) -> None:
        """Join every server, and begin at the clock that any of them knows this rank to have come to."""
        deadline = time.monotonic() + FAIL_OVER_SECONDS
        while True:
            try:
                self._connect()
                break
            except (ChannelClosed, HandshakeError):
                if not self._keeps or time.monotonic() > deadline:
                    raise
                self._view = self._coordinator.view(self._view.number) or self._view
                for rank in [r for r, link in self._links.items() if self._view.addresses.get(r) != link.address]:
                    self._links.pop(rank).channel.close()
        self.base = self.clock = self._heard
        try:
            self._begin()
        except ChannelClosed as error:
            self._recover(error)

    def _primary(self, partition: int) -> ServerLink:
        link = self._links[self._view.primaries[partition]]
        self._last[partition] = link
        return link

    def _make_room(self, partition: int, size: int) -> None:
        """Read what is due where the server could not send it for not being read, nor read for sending."""
        while (link := self._primary(partition)).blocks(size):
            open_ = [request for _, request in link.asked]
            self._wait(lambda: all(request.answer is not None for request in open_))  # noqa: B023  # waited for here

    def _send(self, link: ServerLink, request: Request) -> None:
        try:
            link.ask(request)
        except ChannelClosed as error:
            self._recover(error)

    def _wait(self, done: Callable[[], bool]) -> None:
        """Read what servers say until something holds."""
        while not done():
            try:
                for link in self._speaking():
                    self._read(link)
            except ChannelClosed as error:
                self._recover(error)

    def _speaking(self) -> list[ServerLink]:
        """Links to be read from: the only one that owes us something, or those with something to say."""
        pushed = {self._view.primaries[p] for p, window in enumerate(self._windows) if window.kept}
        owing = [link for rank, link in self._links.items() if link.asked or rank in pushed]
        if len(owing) == 1:
            return owing
        if not owing:
            raise RunError("a worker waits for servers that owe it nothing")
        return [owing[n] for n in ready([link.channel for link in owing])]

    def _read(self, link: ServerLink) -> None:
        header = link.receive()
        if header.op == Op.ACK:
            self._acknowledge(header.table, header.sequence)
        elif header.op == Op.ERROR and header.flags & PUSHED:
            self.refusals.append(str(link.channel.receive_json(header)["message"]))
            window = self._windows[header.table]
            refused = [kept for kept in window.kept if kept[0] == header.sequence]
            window.kept = deque(kept for kept in window.kept if kept[0] != header.sequence)
            self._held -= sum(kept[3] for kept in refused)
        else:
            link.take_answer(header)
            if header.op == Op.ERROR:
                self.refusals.append(str(link.channel.receive_json(header)["message"]))

    def _acknowledge(self, partition: int, number: int) -> None:
        kept = self._windows[partition].kept
        while kept and (number - kept[0][0]) & MASK < 1 << 31:
            self._held -= kept.popleft()[3]

    def _recover(self, error: ChannelClosed) -> None:
        """A connection is broken: go on with the servers that the coordinator names.

        Raises:
            ChannelClosed: There is no going on.
        """
        if not self._keeps:
            raise error
        deadline = time.monotonic() + FAIL_OVER_SECONDS
        while True:
            view = self._coordinator.view(self._view.number)
            try:
                self._follow(view)
                return
            except (ChannelClosed, HandshakeError):
                if time.monotonic() > deadline:
                    raise error from None

    def _follow(self, view: View | None) -> None:
        """Be connected to the servers of a view, and send again what those that are gone had not answered."""
        self._view = view or self._view
        for rank, link in list(self._links.items()):
            if link.broken or self._view.addresses.get(rank) != link.address:
                link.channel.close()
                self._again.extend(request for _, request in link.asked)
                del self._links[rank]
        self._connect()
        self._begin()
        for partition, window in enumerate(self._windows):
            if self._last.get(partition) is not self._links[self._view.primaries[partition]]:
                link = self._primary(partition)
                for _, header, buffers, _ in tuple(window.kept):
                    self._read_what_is_due(link, size_of(buffers))
                    link.send(header, *buffers)
        while self._again:
            self._ask_again(self._again.pop())

    def _ask_again(self, request: Request) -> None:
        if request.partition is None:
            request.answer = Header(Op.OK)  # its successor was told with BEGIN, or by the coordinator
            return
        link = self._primary(request.partition)
        try:
            self._read_what_is_due(link, size_of(request.buffers))
        except ChannelClosed:
            self._again.append(request)
            raise
        link.ask(request)

    def _read_what_is_due(self, link: ServerLink, size: int) -> None:
        """As ``_make_room``, for one link, which is not made good here."""
        while link.due and link.blocks(size):
            self._read(link)

    def _connect(self) -> None:
        """Join the servers of the view that are not connected yet."""
        for rank, address in self._view.addresses.items():
            if rank in self._links:
                continue
            channel = take_up(connect(address[:2], self._token, security=self._security))
            try:
                channel.send_json(Header(Op.JOIN), {"role": "worker", **self._coordinator.identity})
                told = channel.receive_json(channel.receive())
            except BaseException:
                channel.close()
                raise
            self._links[rank] = ServerLink(rank, address, channel)
            self._heard = max(self._heard, told["clock"])
            self.retired = self.retired or told["retired"]

    def _begin(self) -> None:
        """Tell every server that has not heard it at which clock this worker begins."""
        told = json.dumps({"base": self.base, "clock": self.clock}).encode()
        for link in self._links.values():
            if not link.begun:
                link.send(Header(Op.BEGIN), told)
                link.begun = True
