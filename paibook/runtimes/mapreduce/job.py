"""A job: the user's program with all it needs, as it travels to workers and is loaded there once per process."""

from __future__ import annotations

import hashlib
import pickle
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cloudpickle

import paibook
from paibook.errors import PlanError, UserCodeError
from paibook.hyperparameters import HyperParameters
from paibook.program import Program, capture_error

MODULE = "paibook_program_"  # prefix of the names of the modules programs are loaded as
_KEPT = 4  # programs a process remembers

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A job, packed.

    Attributes:
        digest: Different for every run, so that no run sees another's variables.
        content: The pickled program, variables and hyperparameters.
    """

    digest: str
    content: bytes

    @classmethod
    def pack(cls, run: str, program: Program, variables: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> Job:
        """Pack a program and what is pushed with it.

        Raises:
            PlanError: A variable that cannot be pickled; names it.
        """
        pickled = {name: _pickled(name, value) for name, value in variables.items()}
        content = cloudpickle.dumps((program, pickled, dict(hyperparameters)))
        digest = hashlib.blake2b(content, digest_size=8, key=run.encode()[:64]).hexdigest()
        return cls(digest, content)


@dataclass(frozen=True, slots=True)
class Functions:
    """The program's functions, ready to be called.

    Attributes:
        map, reduce: As the cell defines them.
        combine: None where the cell has none.
        module: Name of the module they live in.
    """

    map: Function
    reduce: Function
    combine: Function | None
    module: str


_loaded: OrderedDict[str, Functions | UserCodeError] = OrderedDict()
_lock = threading.Lock()
_by_value = threading.Lock()


def load(job: Job, where: str) -> Functions:
    """The job's functions; runs the cell's top level the first time a process is asked.

    Args:
        where: Names the asking task in errors.

    Raises:
        UserCodeError: The cell's top level raised.
    """
    with _lock:
        if job.digest not in _loaded:
            _loaded[job.digest] = _load(job, where)
            while len(_loaded) > _KEPT:
                sys.modules.pop(MODULE + _loaded.popitem(last=False)[0], None)
        _loaded.move_to_end(job.digest)
        found = _loaded[job.digest]
    if isinstance(found, UserCodeError):
        raise found
    return found


def _load(job: Job, where: str) -> Functions | UserCodeError:
    program, variables, hyperparameters = pickle.loads(job.content)
    # A real module: pickle finds the cell's classes in it by name, so that their instances are equal across workers.
    module = ModuleType(MODULE + job.digest)
    sys.modules[module.__name__] = module
    namespace = vars(module)
    namespace.update({name: pickle.loads(value) for name, value in variables.items()})
    namespace.update(pai=paibook, hp=HyperParameters(**hyperparameters))
    try:
        program.execute(namespace)
        for name in ("map", "reduce"):
            if not callable(namespace.get(name)):
                raise TypeError(f"{name!r} is not a function: it is {type(namespace.get(name)).__name__}")
    except (Exception, SystemExit) as error:
        return capture_error(error, f"{where}, at the cell's top level")
    return Functions(namespace["map"], namespace["reduce"], namespace.get("combine"), module.__name__)


def portable(value: Any, module: str) -> bytes:
    """Pickle a value so that a process without the program can load it: instances bring the cell's classes along."""
    try:
        content = pickle.dumps(value, protocol=5)
        if MODULE.encode() not in content:
            return content
    except (pickle.PicklingError, AttributeError, TypeError):
        pass  # lambdas and the like: cloudpickle takes them
    loaded = sys.modules[module]
    with _by_value:  # the registration is the process's own, and tasks may be threads
        cloudpickle.register_pickle_by_value(loaded)
        try:
            return cloudpickle.dumps(value, protocol=5)
        finally:
            cloudpickle.unregister_pickle_by_value(loaded)


def _pickled(name: str, value: Any) -> bytes:
    try:
        return cloudpickle.dumps(value)
    except Exception as error:  # pickling runs the value's own code, which may raise anything
        raise PlanError(f"the variable {name!r} cannot be sent to workers: {type(error).__name__}: {error}") from error
