"""Hyperparameters: one typed model behind the form, the magic line, the notebook's parameters, the job and the search.

``model`` is the model itself and ``fields`` what can be read off it: kinds, ranges, choices and scales.
"""

from __future__ import annotations

from paibook.hyperparameters.model import HyperParameters, between, choice

__all__ = ["HyperParameters", "between", "choice"]
