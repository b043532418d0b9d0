"""The process of one rank: an ipyparallel engine that takes its connection over its lifeline."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import shutil
import sys
from typing import Any

from paibook.clusters import lifeline

# Beats come every 0.2 s and are looked at every 0.7 s: a rank whose controller is gone ends after about 4 s.
HEARTBEAT_MISSES = 5


def main() -> None:
    """Run the engine; the entry point of the child process."""
    message = lifeline.receive(lambda message: shutil.rmtree(message["folder"], ignore_errors=True))
    faulthandler.enable()
    os.environ.update(message.get("environment", {}))
    _enter(message.get("directory"))
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")

    from ipyparallel.engine.app import IPEngine

    app = IPEngine.instance(config=_config(message["folder"], message["id"]))
    app.connection_info_env = json.dumps(message["connection"])
    app.initialize([])
    app.start()


def _enter(directory: str | None) -> None:
    # The notebook's folder, where this host has it, so that relative paths and local modules mean the same.
    if directory is not None and os.path.isdir(directory):
        os.chdir(directory)
        sys.path.insert(0, directory)


def _config(folder: str, engine_id: int) -> Any:
    from traitlets.config import Config

    config = Config()
    config.ProfileDir.location = folder
    config.IPEngine.id = engine_id
    config.IPEngine.enable_nanny = False
    config.IPEngine.log_level = logging.CRITICAL
    config.IPEngine.timeout = 30
    config.IPEngine.max_heartbeat_misses = HEARTBEAT_MISSES
    return config


if __name__ == "__main__":
    main()
