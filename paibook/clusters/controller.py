"""The ipyparallel controller that a session starts for its ranks, as a child process.

Started through ``Controller.start()``. Against the stock way (``ipyparallel.Cluster``, 6.7 s for two engines) it writes
no files, polls nothing, runs its queues as threads, and says when it is ready.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, NoReturn

from paibook.clusters import lifeline
from paibook.errors import ClusterError

# An engine counts as registered at the second beat, so quick beats are quick starts.
HEARTBEAT_MILLISECONDS = 50
# ipyparallel chooses its ports before it binds them, so that another process may come between: then choose anew.
ATTEMPTS = 5
BIND_SECONDS = 10.0
PORT_TAKEN = 98  # the child's exit code
# A rank's end is seen by its host within milliseconds; 5 s of missed beats tell only of a lost host.
HEARTBEAT_MISSES = 100


class PortTaken(ClusterError):
    """Another process took a port of the controller's before it was bound."""


class Controller:
    """A running controller.

    Attributes:
        client_info, engine_info: Connection information with CurveZMQ keys, for clients and for engines.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], folder: str, client_info: dict[str, Any], engine_info: dict[str, Any]
    ) -> None:
        self._process = process
        self._folder = folder
        self.client_info = client_info
        self.engine_info = engine_info

    @classmethod
    def start(cls, ip: str = "127.0.0.1") -> Controller:
        """Start one and wait until it says that it is ready; one that lost a port to another process is replaced.

        Raises:
            ClusterError: It ended before it was ready; with what it said.
        """
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(PortTaken):
                return cls._start(ip)
        return cls._start(ip)

    @classmethod
    def _start(cls, ip: str) -> Controller:
        folder = tempfile.mkdtemp(prefix="paibook-controller-")
        process = lifeline.spawn(
            "paibook.clusters.controller",
            {"ip": ip, "folder": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        if not line:
            said = process.stderr.read().decode(errors="replace").strip().splitlines()
            code = process.wait()
            lifeline.cut(process)
            shutil.rmtree(folder, ignore_errors=True)
            failed = PortTaken if code == PORT_TAKEN else ClusterError
            raise failed(f"the controller of the ranks did not start: {said[-1] if said else 'it said nothing'}")
        threading.Thread(target=process.stderr.read, name="paibook-controller-stderr", daemon=True).start()
        return cls(process, folder, **json.loads(line))

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def stop(self) -> None:
        """End the controller."""
        lifeline.kill(self._process)
        self._process.wait()
        lifeline.cut(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)


def main() -> None:
    """Run the controller; the entry point of the child process."""
    message = lifeline.receive(lambda message: shutil.rmtree(message["folder"], ignore_errors=True))

    import ipyparallel.controller.app as controller_app
    import zmq
    from traitlets.config import Config

    class QuietController(controller_app.IPController):
        """Keeps connection information in memory and announces readiness on stdout."""

        published: dict[str, Any] = {}

        def save_connection_dict(self, fname: str, cdict: dict[str, Any]) -> None:
            self.published["client_info" if "client" in fname else "engine_info"] = cdict

        def cleanup_connection_files(self) -> None:
            pass

        def terminate_children(self) -> None:
            pass

    # The heart monitor as a thread: a process of its own could outlive a controller that is killed.
    controller_app.Process = threading.Thread
    # A queue that cannot bind ends its thread only, and calls would wait for ever: end the controller instead.
    threading.excepthook = _end
    app = QuietController.instance(config=_config(Config, message["folder"], message["ip"]))
    try:
        app.initialize([])
    except zmq.ZMQError as error:
        _fail(str(error))

    def announce(deadline: float = time.monotonic() + BIND_SECONDS) -> None:
        if missing := _unbound(app.published):
            if time.monotonic() > deadline:
                _fail(f"ports {missing} are not bound")
            app.loop.call_later(0.005, announce)
            return
        sys.stdout.write(json.dumps(app.published) + "\n")
        sys.stdout.flush()

    app.loop.add_callback(announce)
    app.start()


def _unbound(published: dict[str, dict[str, Any]]) -> list[int]:
    """The published ports, those of absent queues aside, that this process does not listen on yet."""
    import psutil

    mine = {c.laddr.port for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return sorted({port for ports in published.values() for port in _ports(ports)} - mine)


def _ports(info: dict[str, Any]) -> list[int]:
    values = [value for name, value in info.items() if name != "task"]  # there is no task queue
    return [port for value in values for port in (value if isinstance(value, list) else [value]) if type(port) is int]


def _end(failure: threading.ExceptHookArgs) -> None:
    _fail(f"{failure.thread.name if failure.thread else 'a thread'}: {failure.exc_value}")


def _fail(said: str) -> NoReturn:
    sys.stderr.write(said + "\n")
    sys.stderr.flush()
    os._exit(PORT_TAKEN)


def _config(config_class: Any, folder: str, ip: str) -> Any:
    config = config_class()
    config.ProfileDir.location = folder
    config.IPController.ip = ip
    config.IPController.use_threads = True
    config.IPController.enable_curve = True
    config.IPController.broadcast_scheduler_depth = 0
    config.IPController.db_class = "ipyparallel.controller.dictdb.NoDB"
    config.IPController.log_level = logging.CRITICAL
    config.TaskScheduler.scheme_name = "none"
    config.HeartMonitor.period = HEARTBEAT_MILLISECONDS
    config.HeartMonitor.max_heartmonitor_misses = HEARTBEAT_MISSES
    return config


if __name__ == "__main__":
    main()
