"""Acknowledgements on their way to one worker, from a thread of their own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from paibook.comms.wire import ChannelClosed, Header


class Acknowledger:
    """Sends frames for threads that must not wait for the worker, which reads nothing while it computes.

    Args:
        send: Sends one; may block.
    """

    def __init__(self, send: Callable[[Header], None]) -> None:
        self._send = send
        self._waiting: queue.SimpleQueue[Header | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def tell(self, header: Header) -> None:
        """Have a frame sent after those before it; for any thread."""
        self._waiting.put(header)
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="paibook-acknowledger", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread once the channel is closed, or all is sent. Safe to repeat."""
        self._waiting.put(None)

    def _run(self) -> None:
        try:
            while (header := self._waiting.get()) is not None:
                self._send(header)
        except ChannelClosed:
            pass  # the worker's own loop reads it
