"""The ipyparallel controller that a session starts for its ranks, as a child process.

Started through ``Controller.start()``. Against the stock way (``ipyparallel.Cluster``, 6.7 s for two engines) it writes
no files, polls nothing, runs its queues as threads, and says when it is ready.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import tempfile
import threading
from typing import Any

from paibook.clusters import lifeline
from paibook.errors import ClusterError

# An engine counts as registered at the second beat, so quick beats are quick starts.
HEARTBEAT_MILLISECONDS = 50
# A rank's end is seen by its host within milliseconds; 5 s of missed beats tell only of a lost host.
HEARTBEAT_MISSES = 100


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
        """Start one and wait until it says that it is ready.

        Raises:
            ClusterError: It ended before it was ready; with what it said.
        """
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
            raise ClusterError(f"the controller of the ranks did not start: {said[-1] if said else 'it said nothing'}")
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
    app = QuietController.instance(config=_config(Config, message["folder"], message["ip"]))
    app.initialize([])

    def announce() -> None:
        sys.stdout.write(json.dumps(app.published) + "\n")
        sys.stdout.flush()

    app.loop.add_callback(announce)
    app.start()


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
