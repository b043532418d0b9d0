"""Hyperparameters: one typed model behind the form, the magic line and the job."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from paibook.errors import PlanError


class HyperParameters(BaseModel):
    """Named values a run is started with; subclass it to give types, defaults and ranges.

    >>> HyperParameters.from_pairs(["lr=0.1", "batch_size=64", "name=adam"]).lr
    0.1
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    @classmethod
    def from_pairs(cls, pairs: list[str]) -> Self:
        """Parse ``name=value`` words; a value is JSON where it parses as JSON, else text.

        Raises:
            PlanError: A word without ``=``, a name that cannot be used, or a value the model does not accept.
        """
        values: dict[str, Any] = {}
        for pair in pairs:
            name, separator, text = pair.partition("=")
            if not separator or not name.isidentifier():
                raise PlanError(f"--hp takes name=value words such as lr=0.1; got {pair!r}")
            if hasattr(cls, name) and name not in cls.model_fields:
                raise PlanError(f"--hp {pair}: hp.{name} means something else already; choose another name")
            values[name] = _value(text)
        try:
            return cls(**values)
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
            raise PlanError(f"--hp {'; '.join(wrong)}") from error

    def values(self) -> dict[str, Any]:
        """All names and values, JSON-able."""
        return self.model_dump(mode="json")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)
