"""Which of several channels have something to be read; for one thread that reads them all."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence

from paibook.comms.wire import Channel, Stream


def ready(channels: Sequence[Channel]) -> list[int]:
    """Positions of the channels from which something can be read, their end included; waits until there is one."""
    streams = [channel.stream for channel in channels]
    if found := _at_hand(streams):
        return found
    began = time.monotonic()
    end = began + max(stream.yields_seconds for stream in streams)
    while not found and time.monotonic() < end:
        os.sched_yield()
        found = _at_hand(streams)
    while not found:
        found = [n for n, stream in enumerate(streams) if stream.before_poll()]
        if found:
            break
        poll = select.poll()
        by_file = {stream.fileno(): n for n, stream in enumerate(streams)}
        if -1 in by_file:
            return [by_file[-1]]  # closed by this side; whoever reads it is told
        for file in by_file:
            poll.register(file, select.POLLIN)
        awake = [by_file[file] for file, _ in poll.poll()]
        found = [n for n in awake if streams[n].after_poll()]
    took = time.monotonic() - began
    for stream in streams:
        stream.waited(took)
    return found


def _at_hand(streams: Sequence[Stream]) -> list[int]:
    return [n for n, stream in enumerate(streams) if stream.at_hand()]
