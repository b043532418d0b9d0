"""Imports that must not be broken off: what a library has done by then in C stays done, and cannot be done again.

A torch or numpy whose import an interrupt has ended fails at the next one, or ends the process.
"""

from __future__ import annotations

import site
import sysconfig
from types import FrameType

_LIBRARIES = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()})


def library_in_import(frame: FrameType | None) -> str | None:
    """The installed library that a thread is in the middle of importing; None for the user's own modules.

    Args:
        frame: The thread's innermost.
    """
    found = None
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(_LIBRARIES):
            spec = frame.f_globals.get("__spec__")
            if getattr(spec, "_initializing", False):
                found = str(frame.f_globals["__name__"]).partition(".")[0]
        frame = frame.f_back
    return found
