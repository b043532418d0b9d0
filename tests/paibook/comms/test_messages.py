"""Objects as bytes: nothing is unpickled without the group's signature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paibook.comms.messages import pack, unpack
from paibook.errors import RunError

TOKEN = b"t" * 32


def test_arrays_come_back_writable_and_equal() -> None:
    value: dict[str, Any] = {
        "a": np.arange(1000.0),
        "b": [np.zeros((0, 3)), "text", None],
        "c": np.asfortranarray(np.eye(3)),
    }
    back = unpack(pack(value, TOKEN), TOKEN)
    assert np.array_equal(back["a"], value["a"])
    assert back["b"][0].shape == (0, 3)
    assert np.array_equal(back["c"], np.eye(3))
    back["a"] += 1


def test_functions_travel_by_value() -> None:
    offset = 3
    assert unpack(pack(lambda x: x + offset, TOKEN), TOKEN)(1) == 4


def test_a_forged_or_damaged_message_is_not_unpickled() -> None:
    calls: list[int] = []

    class Trap:
        def __reduce__(self) -> Any:
            return (calls.append, (1,))

    message = pack("value", TOKEN)
    with pytest.raises(RunError, match="signature"):
        unpack(pack(Trap(), b"another token"), TOKEN)
    for position in range(message.size):
        damaged = message.copy()
        damaged[position] ^= 1
        with pytest.raises(RunError, match=r"signature|cut short"):
            unpack(damaged, TOKEN)
    with pytest.raises(RunError, match="cut short"):
        unpack(message[: message.size // 2], TOKEN)
    assert calls == []


def test_what_cannot_be_sent_is_named() -> None:
    with pytest.raises(TypeError, match="cannot send a generator to another rank"):
        pack((i for i in range(3)), TOKEN)
