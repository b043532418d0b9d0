"""What can be said of a cell's communication before its ranks have met."""

from __future__ import annotations

from paibook.comms.backends import AUTO, GLOO, HIERARCHICAL, SHARED
from paibook.comms.paths import THREADS
from paibook.comms.segment import supported
from paibook.plan import Plan
from paibook.settings import settings


def planned_backends(plan: Plan) -> list[str]:
    """The backends that a plan may come to use: one, or where that depends on the ranks' hosts, for each case one.

    Returns:
        ``THREADS``, or keys of ``BACKENDS``: for ranks of one host, of several with more than one each, of any others.
    """
    if plan.cluster == "inline":
        return [THREADS]
    asked = str(plan.options.get("backend", AUTO))
    if asked != AUTO:
        return [asked]
    if not (supported() and settings().shared_memory):
        return [GLOO]
    return [SHARED] if plan.cluster == "embedded" else [SHARED, HIERARCHICAL, GLOO]
