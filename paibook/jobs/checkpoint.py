"""The variables of a job's kernel, kept after each cell so that a later attempt can go on; runs in the kernel."""

from __future__ import annotations

import importlib
import io
import pickle
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MOST_BYTES = 200_000_000


class _Bounded(io.BytesIO):
    def write(self, data: Any) -> int:
        if self.tell() + len(data) > MOST_BYTES:
            raise pickle.PicklingError("too large")
        return super().write(data)


def save(path: str, namespace: Mapping[str, Any], hidden: Mapping[str, Any]) -> None:
    """Write what can be pickled of a notebook's variables; replaces the file at once.

    Plain pickle refers to the notebook's own classes and functions by name, so that they are those that the notebook
    defines again. Everything goes into one pickle: what two variables share, they share afterwards.
    """
    values = {n: v for n, v in namespace.items() if not n.startswith("_") and n not in hidden}
    modules = {name: value.__name__ for name, value in values.items() if isinstance(value, types.ModuleType)}
    kept = {name: value for name, value in values.items() if name not in modules and _pickles(value)}
    try:
        pickled = _pickle(kept)
    except Exception:  # together they are too large, or hold what only one of them can pickle
        kept, pickled = {}, pickle.dumps({})
    temporary = Path(f"{path}.new")
    with temporary.open("wb") as file:
        pickle.dump({"modules": modules, "names": sorted(kept), "values": pickled}, file)
    temporary.replace(path)


def restore(path: str, namespace: dict[str, Any]) -> None:
    """Bring the variables back; raises where what they refer to is no longer there."""
    with open(path, "rb") as file:
        saved = pickle.load(file)
    values = pickle.loads(saved["values"])
    namespace.update({name: importlib.import_module(module) for name, module in saved["modules"].items()})
    namespace.update(values)


def names_in(path: Path) -> set[str] | None:
    """The variables that a checkpoint holds, without loading them; None where there is none."""
    try:
        with path.open("rb") as file:
            saved = pickle.load(file)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    return {*saved["names"], *saved["modules"]}


def _pickles(value: Any) -> bool:
    try:
        _pickle(value)
    except Exception:  # a user's object may fail to pickle in any way at all
        return False
    return True


def _pickle(value: Any) -> bytes:
    file = _Bounded()
    pickle.dump(value, file, protocol=pickle.HIGHEST_PROTOCOL)
    return file.getvalue()
