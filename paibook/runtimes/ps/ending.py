"""How the coordinator tells its peers that the run is over: a frame that comes when it comes, in place of an answer."""

from __future__ import annotations

from paibook.comms.wire import Channel, ChannelClosed, Header
from paibook.runtimes.ps.messages import Op


class Over(ChannelClosed):
    """The coordinator has ended the run."""


def say_over(channel: Channel) -> None:
    """Tell a peer, as far as it still listens, that the run is over."""
    try:
        channel.send(Header(Op.SHUTDOWN))
    except ChannelClosed:
        pass


def receive(channel: Channel) -> Header:
    """The next frame's header.

    Raises:
        Over: It says that the run is over.
        ChannelClosed: The connection has ended.
    """
    header = channel.receive()
    if header.op == Op.SHUTDOWN:
        raise Over("the run is over")
    return header
