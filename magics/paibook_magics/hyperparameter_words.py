"""``--hp``: a model or defaults that a notebook variable holds, and values over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paibook.errors import PlanError
from paibook.hyperparameters import HyperParameters
from paibook.hyperparameters.fields import model_of
from paibook.hyperparameters.model import checked, from_words
from paibook.hyperparameters.values import merged


def hyperparameters(words: Sequence[str], namespace: Mapping[str, Any]) -> HyperParameters:
    """The values of ``--hp lr=0.1``, or of ``--hp Adam lr=0.1`` where the notebook has a model or defaults ``Adam``.

    Raises:
        PlanError: A word that is neither, two models, or a value the model does not accept.
    """
    model, values, pairs = split(words, namespace)
    return checked(model, merged(values, from_words(model, pairs)), "--hp ")


def split(
    words: Sequence[str], namespace: Mapping[str, Any]
) -> tuple[type[HyperParameters], dict[str, Any], list[str]]:
    """The model that the words name, the values it comes with, and the ``name=value`` words.

    Raises:
        PlanError: As ``hyperparameters``.
    """
    pairs = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    if not names:
        return HyperParameters, {}, pairs
    if len(names) > 1:
        raise PlanError(f"--hp takes one model before its name=value words; got {' and '.join(map(repr, names))}")
    name = names[0]
    if name not in namespace:
        raise PlanError(
            f"--hp takes name=value words such as lr=0.1, and before them the name of a notebook variable that holds "
            f"a pai.HyperParameters model or a dict of defaults; got {name!r}"
        )
    model, values = model_of(namespace[name], name)
    return model, values, pairs
