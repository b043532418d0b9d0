"""What a user hands to a buffer operation, seen as one flat NumPy array over the same memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def flat(buffer: Any, name: str, writable: bool = False) -> NDArray[Any]:
    """View a buffer's memory as a one-dimensional array of its dtype.

    Args:
        buffer: A NumPy array, a torch tensor in main memory, or anything with the buffer protocol; C-contiguous.
        name: What the operation calls it, for messages.
        writable: Whether the operation writes to it.

    Raises:
        TypeError: Not a buffer in main memory.
        ValueError: Not contiguous, or read-only where it is written to.
    """
    array = _array(buffer, name)
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous; pass a contiguous copy of this array of shape {array.shape}")
    if writable and not array.flags.writeable:
        raise ValueError(f"{name} is read-only; the operation writes its result there")
    if array.dtype.hasobject:
        raise TypeError(f"{name} holds Python objects; use the operation's lower-case form for those")
    return array.reshape(-1)


def same_layout(left: NDArray[Any], right: NDArray[Any], names: tuple[str, str]) -> None:
    """Refuse two buffers of different dtype or length.

    Raises:
        ValueError: Naming both.
    """
    if left.dtype != right.dtype or left.size != right.size:
        shown = [f"{n} has {a.size} of {a.dtype}" for n, a in zip(names, (left, right), strict=True)]
        raise ValueError(f"{' and '.join(names)} must have one dtype and length; {', '.join(shown)}")


def _array(buffer: Any, name: str) -> NDArray[Any]:
    if isinstance(buffer, np.ndarray):
        return buffer
    if hasattr(buffer, "is_cuda"):  # a torch tensor, told without importing torch
        if buffer.device.type != "cpu":
            raise TypeError(f"{name} is a tensor on {buffer.device}; gloo reads main memory: pass {name}.cpu()")
        array: NDArray[Any] = buffer.detach().numpy()
        return array
    try:
        return np.asarray(memoryview(buffer))
    except TypeError as error:
        raise TypeError(
            f"{name} must be a NumPy array or a torch tensor; got {type(buffer).__name__}. "
            "Python objects go through the operation's lower-case form"
        ) from error
