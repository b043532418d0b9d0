"""Studies: a cell run again and again with other hyperparameters, by Optuna, in search of the best."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from paibook.errors import PaibookError
from paibook.hyperparameters.fields import model_of
from paibook.plan import Plan
from paibook.session import Session, current
from paibook.studies.space import Space
from paibook.studies.trials import StudyOptions

if TYPE_CHECKING:
    from paibook.studies.running import Search

__all__ = ["Space", "StudyOptions", "search"]


def search(
    plan: Plan,
    space: Any = None,
    *,
    ranges: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    session: Session | None = None,
    **options: Any,
) -> Search:
    """Search for the hyperparameters with which a cell's metric is best; returns at once.

    Args:
        plan: The cell. Its own hyperparameters stay as they are, and are not searched.
        space: A ``HyperParameters`` subclass or instance, or a dict of defaults: what has a range or choices is
            searched.
        ranges: Further ranges by name, ``between(...)`` or ``choice(...)``; they take the place of the model's.
        variables: Values of the plan's pushed variables.
        session: Where the trials run; the notebook's own session by default.
        **options: See ``StudyOptions``: ``metric``, ``direction``, ``trials``, ``jobs``, ``study``, ``resume``, ...

    Raises:
        PaibookError: Optuna is not installed.
        PlanError: There is nothing to search, or an option that cannot be meant.
    """
    model, values = model_of({} if space is None else space, "the space")
    return start(
        plan, Space.of(model, values, plan.hyperparameters, ranges or {}), StudyOptions(**options), variables, session
    )


def start(
    plan: Plan,
    space: Space,
    options: StudyOptions,
    variables: Mapping[str, Any] | None = None,
    session: Session | None = None,
) -> Search:
    """The same, for a space and options that were made before."""
    if find_spec("optuna") is None:
        raise PaibookError("searching needs Optuna; install it with: pip install 'paibook[search]'")
    from paibook.studies.running import Search

    return Search(plan, space, options, variables or {}, session or current()).start()
