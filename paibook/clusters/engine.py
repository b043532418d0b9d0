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

# Beats are looked at about twice a second: a rank whose controller is gone ends after about 4 s.
HEARTBEAT_MISSES = 7


def main() -> None:
    """Run the engine; the entry point of the child process."""
    message = lifeline.receive(lambda message: shutil.rmtree(message["folder"], ignore_errors=True))
    faulthandler.enable()
    os.environ.update(message.get("environment", {}))
    _enter(message.get("directory"))
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")

    _skip_debugger()
    from ipyparallel.engine.app import IPEngine

    app = IPEngine.instance(config=_config(message["folder"], message["id"]))
    app.connection_info_env = json.dumps(message["connection"])
    app.initialize([])
    app.start()


def _skip_debugger() -> None:
    # ipykernel's visual debugger costs a quarter of an engine's start, and no front end can reach a rank with it.
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # importlib reads None as "not to be had"
    import ipykernel.debugger  # noqa: F401

    del sys.modules["debugpy"]


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
    config.InteractiveShell.display_page = True  # `name?` in a cell is shown there: a rank has no pager
    config.IPEngine.max_heartbeat_misses = HEARTBEAT_MISSES
    return config


if __name__ == "__main__":
    main()
