"""Waiting for what another process is about to do, so that Ctrl-C gets through and no core is kept from the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

YIELD_SECONDS = 0.002
FIRST_PAUSE, LONGEST_PAUSE = 50e-6, 1e-3  # the longest is what is lost where a peer comes late; Ctrl-C takes no longer


def wait_until(done: Callable[[], bool], check: Callable[[], None]) -> None:
    """Return when ``done`` holds: give way to others for a while, then sleep, longer and longer.

    Args:
        check: Called where it does not hold; raises what ends the wait.
    """
    end = time.monotonic() + YIELD_SECONDS
    pause = FIRST_PAUSE
    while not done():
        check()
        if time.monotonic() < end:
            os.sched_yield()
        else:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
