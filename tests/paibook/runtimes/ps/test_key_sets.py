"""Keys are sent once: both ends of a connection remember the same sets, and forget them together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.comms.wire import Header
from paibook.errors import RunError
from paibook.runtimes.ps import key_sets
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.key_sets import ReceivedKeys, SentKeys, Splits
from paibook.runtimes.ps.messages import KNOWN_KEYS, WHOLE, Op
from tests.paibook.runtimes.ps.server_threads import channels, serving


class Payload:
    """The receiving end of a channel that holds one payload."""

    def __init__(self, buffers: tuple[Any, ...]) -> None:
        self.buffers = list(buffers)

    def receive_array(self, count: int, dtype: Any) -> np.ndarray:
        keys = self.buffers.pop(0)
        assert keys.dtype == dtype
        assert keys.shape == (count,)
        return keys.copy()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), max_size=60), st.integers(1, 5))
def test_the_receiver_gets_the_senders_keys_whatever_was_sent_before(asked: list[Any], sets: int) -> None:
    sender, receiver = SentKeys(), ReceivedKeys()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_sets, "MAX_SETS", sets)
        patch.setattr(key_sets, "MAX_BYTES", 8 * 20)
        recent: list[tuple[int, int]] = []
        for table, kind in asked:
            keys = np.arange(kind * 2, dtype=np.int64)[::-1].copy()  # the longest are too large to be remembered
            header, buffers = sender.shorten(Header(Op.PULL, table=table, keys=len(keys)), (keys,))
            if (table, kind) in recent[-1:] and 0 < keys.nbytes <= key_sets.MAX_BYTES:
                assert header.flags & KNOWN_KEYS
                assert not buffers
            received = receiver.receive(header, Payload(buffers))  # type: ignore[arg-type]
            assert received is not None
            assert received.tolist() == keys.tolist()
            recent.append((table, kind))


def test_a_request_for_every_row_has_no_keys() -> None:
    header, buffers = SentKeys().shorten(Header(Op.PUSH, WHOLE), (np.ones(3),))
    assert header == Header(Op.PUSH, WHOLE)
    assert len(buffers) == 1
    assert ReceivedKeys().receive(header, Payload(())) is None  # type: ignore[arg-type]


def test_a_set_of_another_connection_is_not_known() -> None:
    sender, keys = SentKeys(), np.arange(3)
    sender.shorten(Header(Op.PULL, keys=3), (keys,))
    header, _ = sender.shorten(Header(Op.PULL, keys=3), (keys,))
    with pytest.raises(RunError, match="does not know"):
        ReceivedKeys().receive(header, Payload(()))  # type: ignore[arg-type]


@given(st.lists(st.lists(st.integers(-5, 5), max_size=6), max_size=12), st.integers(1, 3))
def test_splits_are_remembered_but_not_the_callers_array(asked: list[list[int]], servers: int) -> None:
    splits = Splits(None, servers)
    for keys in asked:
        rows = np.array(keys, np.int64)
        parts = splits.of(rows)
        again = splits.of(rows.copy())
        assert all(a is b for (_, _, a), (_, _, b) in zip(parts, again, strict=True))
        rows[:] = 99
        out = np.zeros(len(keys), np.int64)
        for _, where, local in parts:
            out[where] = local
        assert out.tolist() == keys


@pytest.mark.parametrize("servers", [1, 3])
def test_pulls_and_pushes_of_the_same_keys_do_not_send_them_again(servers: int) -> None:
    with serving(Consistency("asp"), 1, servers) as run:
        ps = run.connect(0)
        sent: list[Header] = []
        for channel in channels(ps):
            send = channel.send
            channel.send = lambda header, *b, send=send: (sent.append(header), send(header, *b))  # type: ignore
        tables = [
            ps.table("s", sparse=True, width=2, dtype="int64"),
            ps.table("d", shape=(900, 2), dtype="int64"),
        ]
        for table in tables:
            keys = np.arange(0, 900, 3)
            one = np.ones((300, 2), np.int64)
            assert not table.pull(keys).any()
            sent.clear()
            table.push(keys, one)
            assert (table.push_pull(keys, one) == 2).all()
            assert len(sent) == 3 * servers
            assert all(header.flags & KNOWN_KEYS for header in sent)
            keys += 1  # in place: another set
            assert not table.pull(keys).any()
            assert (table.pull(keys - 1) == 2).all()
        ps.close()
