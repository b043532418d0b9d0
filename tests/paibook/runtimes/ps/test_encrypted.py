"""Runs whose servers listen on an outward address: encrypted, unless worker and server share a host's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paibook.comms import shared_channel, tls
from paibook.runtimes.ps import driver

CELL = """
    import numpy as np
    target = np.arange(50_000.0)

    def train(ps):
        w = ps.table("w", shape=50_000, dtype="float64", optimizer=pai.SGD(lr=0.1))
        for epoch in ps.clocks(8):
            w.push(w.pull() - target)
"""


@pytest.mark.parametrize("shared", [False, True])
def test_servers_that_others_must_reach_speak_tls(bench: Any, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """As where hosts differ: the servers' addresses are those toward another host, here this one."""
    sent = 0
    send_all = tls.TlsStream.send_all

    def counting(stream: tls.TlsStream, views: list[memoryview]) -> None:
        nonlocal sent
        sent += sum(map(len, views))
        send_all(stream, views)

    monkeypatch.setattr(tls.TlsStream, "send_all", counting)
    monkeypatch.setattr(driver, "_toward", lambda servers, workers: lambda ranks, rank: "127.0.0.1")
    if not shared:
        monkeypatch.setattr(shared_channel, "supported", lambda: False)
    elif not shared_channel.supported():
        pytest.skip("this machine's processes cannot share memory this way")
    result = bench.run(CELL)
    assert np.abs(result.tables["w"] - np.arange(50_000.0) * (1 - 0.7**8)).max() < 1e-6
    assert (sent < 10_000) if shared else (sent > 3 * 8 * 2 * 50_000 * 8)


def test_on_one_host_nothing_is_encrypted(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls.RunCertificate, "new", lambda: pytest.fail("a certificate was made"))
    assert bench.run(CELL).clock == 8
