"""A worker's link to a server: answers find their requests, also where a server gives a later one first."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import numpy as np
import pytest

from paibook.comms.wire import Channel, ChannelClosed, Header, SocketStream, listen
from paibook.runtimes.ps.messages import Op
from paibook.runtimes.ps.server_link import Request, ServerLink
from paibook.runtimes.ps.views import Address


@pytest.fixture
def ends() -> Iterator[tuple[ServerLink, Channel]]:
    with listen() as listener:
        ours = Channel(SocketStream(socket.create_connection(listener.getsockname())))
        theirs = Channel(SocketStream(listener.accept()[0]))
    yield ServerLink(0, Address("h", 1), ours), theirs
    ours.close()
    theirs.close()


def test_answers_of_two_partitions_may_come_in_any_order(ends: tuple[ServerLink, Channel]) -> None:
    link, server = ends
    first, second = Request(Header(Op.DECLARE), partition=0), Request(Header(Op.PULL), partition=1, into=np.zeros(2))
    for request in (first, second):
        link.ask(request)
        server.receive()
    server.send(Header(Op.OK, sequence=2), np.array([3.0, 4.0]))
    server.send(Header(Op.OK, sequence=1))
    assert link.take_answer(link.receive()) is second
    assert link.take_answer(link.receive()) is first
    assert second.into is not None
    assert second.into.tolist() == [3, 4]
    assert not link.asked


@pytest.mark.parametrize("wrong", [Header(Op.OK, sequence=7), Header(Op.OK, sequence=1, length=8)])
def test_an_answer_that_fits_no_request_ends_the_link(ends: tuple[ServerLink, Channel], wrong: Header) -> None:
    link, _ = ends
    link.ask(Request(Header(Op.DECLARE), partition=0))
    with pytest.raises(ChannelClosed, match="a server answered"):
        link.take_answer(wrong)
    assert link.broken
