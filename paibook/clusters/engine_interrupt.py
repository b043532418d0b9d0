"""Which call an interrupt is meant for: it may reach an engine when that call has ended, and the next one runs."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from paibook.clusters.imports import library_in_import

POLL_SECONDS = 0.01

CALL = "call"  # in the content of an interrupt request: the message id of the call that is to end


class Interrupts:
    """One engine's: SIGINT raises ``KeyboardInterrupt`` in the call that an interrupt request names, and in no other.

    A request that names no call, and a signal that came without a request, mean whatever runs. One that comes while an
    installed library is being imported waits for the end of the import.
    """

    def __init__(self) -> None:
        self._running: str | None = None
        self._asked: str | None = None
        self._lock = threading.Lock()  # of the control thread, which asks, and the main thread, which runs
        self._process = os.getpid()
        # A pipe, since a signal's handler must not wait for a lock that the code it interrupts may hold.
        self._held_call: str | None = None
        self._held, self._hold = os.pipe()
        os.set_blocking(self._hold, False)
        threading.Thread(target=self._release, name="paibook-held-interrupts", daemon=True).start()

    def heed(self, kernel: Any) -> None:
        """Answer the kernel's interrupt requests from now on."""
        handler = kernel.control_handlers["interrupt_request"]

        async def answer(stream: Any, ident: Any, parent: dict[str, Any]) -> None:
            call = parent["content"].get(CALL)
            with self._lock:
                self._asked = call
                if call is None or call == self._running:
                    result = handler(stream, ident, parent)
                    if inspect.isawaitable(result):
                        await result  # it has nothing to wait for
                    return
            kernel.session.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)

        kernel.control_handlers["interrupt_request"] = answer

    def begin(self, call: str) -> None:
        """From now on interrupts of this call raise."""
        if threading.current_thread() is not threading.main_thread():
            return  # signals reach the main thread only
        signal.signal(signal.SIGINT, self._on_signal)
        self._running = call
        if self._asked == call:  # while its arguments were read
            raise KeyboardInterrupt

    def end(self) -> None:
        """From now on no interrupt raises; may be called again where one came at this moment."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._running = None
        with self._lock:  # after this, no signal is on its way
            # ipyparallel's engine ignores it too. ipykernel's own handler raises until the reply has been sent, so that
            # a late one would cost the reply.
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._running is None:
            return
        if library_in_import(frame) is not None and os.getpid() == self._process:
            self._hold_back()
            return
        signal.default_int_handler(number, frame)

    def _hold_back(self) -> None:
        self._held_call = self._running
        try:
            os.write(self._hold, b"!")
        except BlockingIOError:
            pass  # full of others

    def _release(self) -> None:
        """Interrupt the call again when the import has ended during which it was interrupted."""
        main = threading.main_thread().ident
        assert main is not None
        while os.read(self._held, 4096):
            call = self._held_call
            while call == self._running and library_in_import(sys._current_frames().get(main)) is not None:
                time.sleep(POLL_SECONDS)
            with self._lock:
                if call is not None and call == self._running:
                    os.kill(self._process, signal.SIGINT)
