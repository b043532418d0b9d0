"""Each programming model's picture of a run, and the function that draws it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from paibook_magics.allreduce_picture import allreduce_bundle
from paibook_magics.mapreduce_scene import mapreduce_bundle
from paibook_magics.ps_picture import ps_bundle

Draw = Callable[..., dict[str, str]]  # a picture and, perhaps, a last line, to a MIME bundle of HTML and text
DRAWN: dict[str, Draw] = {"mapreduce": mapreduce_bundle, "allreduce": allreduce_bundle, "ps": ps_bundle}


def drawn(picture: Mapping[str, Any], note: str = "") -> dict[str, str]:
    """A picture of any model as a MIME bundle of HTML and text; one that nobody here can draw says so.

    Args:
        picture: ``Progress.picture``, whose ``model`` names the programming model.
        note: A last line.
    """
    model = str(picture.get("model"))
    if model not in DRAWN:
        text = f"this version of paibook draws no picture of {model!r} runs"
        return {"text/plain": text, "text/html": f"<p>{escape(text)}</p>"}
    return DRAWN[model](picture, note)
