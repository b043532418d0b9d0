"""The plan: a frozen, JSON-able value with everything needed to run a cell again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from paibook.errors import PlanError
from paibook.program import Program
from paibook.resources import Resources

RUNTIMES = ("mapreduce", "allreduce", "ps")


@dataclass(frozen=True)
class Plan:
    """What will run, where, and with what. Four readers: the session, the job exporter, the run history, the explainer.

    Attributes:
        runtime: The programming model: ``"mapreduce"``, ``"allreduce"`` or ``"ps"``.
        program: The cell's source.
        resources: Workers, servers, cards and memory.
        cluster: Reference of the cluster, such as ``"embedded"``, ``"inline"`` or ``"tcp://host:8786"``.
        name: Shown in the run history.
        options: The programming model's own options, JSON-able.
        hyperparameters: Names and values, JSON-able; the program sees them as ``hp``.
        push: Notebook variables sent along, by name.
        pull: Variables fetched back, each ``name`` or ``name@rank``.
        targets: Ranks the cell runs on, or None for all.
        timeout: Seconds the run may take, or None.
        detach: Whether a process of its own is to carry it out, which outlives the notebook: ``Session.detach``.
    """

    runtime: str
    program: Program
    resources: Resources = Resources()
    cluster: str = "embedded"
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    push: tuple[str, ...] = ()
    pull: tuple[str, ...] = ()
    targets: tuple[int, ...] | None = None
    timeout: float | None = None
    detach: bool = False

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise PlanError(f"unknown programming model {self.runtime!r}; there are {', '.join(RUNTIMES)}")
        for name in ("options", "hyperparameters"):
            values = dict(getattr(self, name))
            try:
                frozen = json.loads(json.dumps(values))
            except (TypeError, ValueError) as error:  # ValueError: a value that holds itself
                raise PlanError(f"{name} of a plan must be JSON-able: {error}") from error
            object.__setattr__(self, name, MappingProxyType(frozen))

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain dicts, lists and scalars."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["program"] = dataclasses.asdict(self.program)
        values["resources"] = dataclasses.asdict(self.resources)
        values["options"] = dict(self.options)
        values["hyperparameters"] = dict(self.hyperparameters)
        values["push"], values["pull"] = list(self.push), list(self.pull)
        values["targets"] = None if self.targets is None else list(self.targets)
        return values

    def to_json(self) -> str:
        """The plan as JSON text; ``Plan.from_json`` gives back an equal plan."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan back.

        Raises:
            PlanError: Not JSON, or not a plan.
        """
        try:
            values = json.loads(text)
            values["program"] = Program(**values["program"])
            values["resources"] = Resources(**values["resources"])
            values["push"], values["pull"] = tuple(values["push"]), tuple(values["pull"])
            values["targets"] = None if values["targets"] is None else tuple(values["targets"])
            return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise PlanError(f"not a plan: {error}") from error

    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the plan's JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def __hash__(self) -> int:
        return hash(self.to_json())
