"""What processes other than workers load of a cell: its definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paibook.clusters.contract import Place
from paibook.hyperparameters import HyperParameters
from paibook.program import capture_error
from paibook.runtimes.ps.messages import Scene


def defined(place: Place, scene: Scene, name: str, who: str) -> Callable[..., Any] | None:
    """Run the cell's definitions here; its function ``name``, if there is one.

    Raises:
        UserCodeError: They raised; names ``who`` ran them.
    """
    import paibook

    namespace = place.namespace
    namespace.update({"pai": paibook, "hp": HyperParameters(**scene.hyperparameters), **scene.variables})
    namespace.pop(name, None)  # an earlier cell's
    try:
        scene.program.definitions().execute(namespace)
    except Exception as error:
        raise capture_error(error, who) from error
    found = namespace.get(name)
    return found if callable(found) else None
