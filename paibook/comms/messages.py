"""Objects as bytes between ranks: a signed pickle, and the memory of large arrays beside it."""

from __future__ import annotations

import hmac
import io
import pickle
import struct
from collections.abc import Sequence
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from paibook.errors import RunError

Message = NDArray[np.uint8]

_PREFIX = struct.Struct("<QI")  # bytes of the pickle stream, number of buffers beside it
_LENGTH = struct.Struct("<Q")
_SIGNATURE_BYTES = 32
_ALIGNMENT = 64


def pack(value: Any, token: bytes) -> Message:
    """Pickle a value into one flat array of bytes.

    The stream is signed with HMAC-SHA256 under ``token``; arrays travel beside it unsigned, since raw memory cannot
    run anything (pickle protocol 5, PEP 574).

    Raises:
        TypeError: The value cannot be pickled; names its type.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = _dumps(value, buffers)
    raws = [buffer.raw() for buffer in buffers]
    prefix = _PREFIX.pack(len(stream), len(raws)) + b"".join(_LENGTH.pack(raw.nbytes) for raw in raws)
    head = prefix + hmac.digest(token, prefix + stream, "sha256") + stream
    offsets, end = _layout(len(head), [raw.nbytes for raw in raws])
    message = np.empty(end, np.uint8)
    message[: len(head)] = np.frombuffer(head, np.uint8)
    for offset, raw in zip(offsets, raws, strict=True):
        message[offset : offset + raw.nbytes] = np.frombuffer(raw, np.uint8)
    return message


def unpack(message: Message, token: bytes) -> Any:
    """Read a value back. Its arrays are views of the message's memory.

    Raises:
        RunError: The message was not packed under ``token``; nothing of it is unpickled then.
    """
    data = memoryview(message.data)
    stream_bytes, count = _PREFIX.unpack_from(data)
    lengths_end = _PREFIX.size + count * _LENGTH.size
    head_end = lengths_end + _SIGNATURE_BYTES + stream_bytes
    if head_end > len(data):
        raise RunError("a message between ranks was cut short")
    stream = data[lengths_end + _SIGNATURE_BYTES : head_end]
    expected = hmac.digest(token, bytes(data[:lengths_end]) + bytes(stream), "sha256")
    if not hmac.compare_digest(expected, bytes(data[lengths_end : lengths_end + _SIGNATURE_BYTES])):
        raise RunError("a message between ranks does not carry this group's signature; it was not unpickled")
    lengths = [_LENGTH.unpack_from(data, _PREFIX.size + i * _LENGTH.size)[0] for i in range(count)]
    offsets, _ = _layout(head_end, lengths)
    return pickle.loads(stream, buffers=[data[o : o + n] for o, n in zip(offsets, lengths, strict=True)])


def pack_items(items: Sequence[Any] | ValueError | None, size: int, token: bytes) -> list[Message]:
    """A message for each of ``size`` ranks, one item in it; see ``unpack_item``.

    An error goes to everybody instead of the items, since everybody waits for them.
    """
    if isinstance(items, ValueError) or items is None:
        return [pack(items, token)] * size
    return [pack((item,), token) for item in items]


def unpack_item(message: Message, token: bytes) -> Any:
    """Read back what ``pack_items`` put into one of its messages; raises the error that came instead."""
    item = unpack(message, token)
    if isinstance(item, ValueError):
        raise item
    return item[0]


def _dumps(value: Any, buffers: list[pickle.PickleBuffer]) -> bytes:
    try:
        stream = pickle.dumps(value, 5, buffer_callback=buffers.append)
        # What a cell defines lives in __main__, which the receiving process may not share: send it by value.
        if b"__main__" not in stream:
            return stream
    except (pickle.PicklingError, AttributeError, TypeError):
        pass  # cloudpickle knows functions and classes that pickle does not
    buffers.clear()
    file = io.BytesIO()
    try:
        cloudpickle.CloudPickler(file, 5, buffer_callback=buffers.append).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(f"cannot send a {type(value).__name__} to another rank: {error}") from error
    return file.getvalue()


def _layout(start: int, lengths: list[int]) -> tuple[list[int], int]:
    offsets = []
    for length in lengths:
        start += -start % _ALIGNMENT
        offsets.append(start)
        start += length
    return offsets, start
