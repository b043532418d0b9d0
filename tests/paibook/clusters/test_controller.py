"""The ranks' controller: it announces itself only when calls can pass through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paibook.clusters import controller, lifeline

# Between the choice of a port and its binding, another process takes it: in the first `times` controllers.
THIEF = """
import pathlib, socket
import ipyparallel.controller.app as app
from paibook.clusters import controller

count = pathlib.Path(__file__).with_name("count")
seen = int(count.read_text()) if count.exists() else 0
count.write_text(str(seen + 1))
taken = []

def steal(self, bind=app.IPController.init_schedulers):
    if seen < {times}:
        taken.append(socket.create_server(("127.0.0.1", int(self.client_url("mux").rpartition(":")[2]))))
    bind(self)

app.IPController.init_schedulers = steal
controller.main()
"""


def thief(folder: Path, times: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "port_thief.py").write_text(THIEF.format(times=times))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    spawn = lifeline.spawn
    monkeypatch.setattr(lifeline, "spawn", lambda module, message, **options: spawn("port_thief", message, **options))
    monkeypatch.setattr(controller.tempfile, "tempdir", str(folder))
    return folder


def test_a_port_taken_meanwhile_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thief(tmp_path, 1, monkeypatch)
    started = controller.Controller.start()
    try:
        assert (tmp_path / "count").read_text() == "2"
        assert len(list(tmp_path.glob("paibook-controller-*"))) == 1
    finally:
        started.stop()
    assert not list(tmp_path.glob("paibook-controller-*"))


def test_ports_always_taken_are_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thief(tmp_path, 99, monkeypatch)
    with pytest.raises(controller.PortTaken, match=r"did not start: .*[Aa]ddress already in use"):
        controller.Controller.start()
    assert (tmp_path / "count").read_text() == str(controller.ATTEMPTS)
    assert not list(tmp_path.glob("paibook-controller-*"))


def test_it_listens_on_every_port_it_publishes() -> None:
    started = controller.Controller.start()
    try:
        published: dict[str, dict[str, Any]] = {"client": started.client_info, "engine": started.engine_info}
        import psutil

        own = psutil.Process(started.pid).net_connections("tcp")
        listening = {c.laddr.port for c in own if c.status == psutil.CONN_LISTEN}
        for info in published.values():
            ports = set(controller._ports(info))
            assert len(ports) >= 6
            assert ports <= listening
    finally:
        started.stop()
