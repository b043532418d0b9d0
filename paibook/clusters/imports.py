"""Imports that must not be broken off: what a library has done by then in C stays done, and cannot be done again.

A torch or numpy whose import an interrupt has ended fails at the next one, or ends the process.
"""

from __future__ import annotations

import site
import sysconfig
from types import FrameType

_LIBRARIES = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()})
# Their variable ``spec`` is the module's, from when it was found until it is an attribute of its package: what its code
# did is undone, and cannot be done again, where an interrupt falls after its last line and before they return.
_LOADING = {"_find_and_load_unlocked", "_load_unlocked"}


def library_in_import(frame: FrameType | None) -> str | None:
    """The installed library that a thread is in the middle of importing; None for the user's own modules.

    Args:
        frame: The thread's innermost.
    """
    found = None
    while frame is not None:
        if frame.f_code.co_name in _LOADING and frame.f_code.co_filename.startswith("<frozen importlib"):
            spec = frame.f_locals.get("spec")
            if spec is not None and str(spec.origin).startswith(_LIBRARIES):
                found = str(spec.name).partition(".")[0]
        frame = frame.f_back
    return found
