"""A job: the user's program with all it needs, as it travels to workers and is loaded there once per process."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import sys
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

import paibook
from paibook.errors import DataError, PlanError, ProgramError, UserCodeError
from paibook.hyperparameters import HyperParameters
from paibook.program import Program, capture_error
from paibook.runtimes.mapreduce.forms import form_of
from paibook.runtimes.mapreduce.outline import Outline, StageOutline, outline, suffixed
from paibook.runtimes.mapreduce.reducers import Reducer
from paibook.runtimes.mapreduce.task import Task, running

MODULE = "paibook_program_"  # prefix of the names of the modules programs are loaded as
_KEPT = 4  # programs a process remembers

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A job, packed.

    Attributes:
        digest: Different for every run, so that no run sees another's variables.
        content: The pickled program, variables, hyperparameters and resources.
        outline: What the program defines.
        path: The file that holds the content instead, where all workers share one.
    """

    digest: str
    content: bytes
    outline: Outline
    path: Path | None = None

    def in_file(self, path: Path) -> Job:
        """The same with its content in a file.

        As a dependency of tasks it would draw them all to the worker that holds it.

        Raises:
            DataError: The disk is full.
        """
        try:
            path.write_bytes(self.content)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}; free space there") from error
        return replace(self, content=b"", path=path)

    @classmethod
    def pack(
        cls,
        run: str,
        program: Program,
        variables: Mapping[str, Any],
        hyperparameters: Mapping[str, Any],
        inputs: Collection[str] = (),
        resources: Mapping[str, Path] | None = None,
        shape: Outline | None = None,
    ) -> Job:
        """Pack a program and what is sent with it.

        Args:
            run: Makes the digest unique.
            program: The cell.
            variables, hyperparameters: By name.
            inputs: Names of the named inputs.
            resources: Files whose content is sent along, by file name.
            shape: The program's outline, where more is known of it than is seen in it.

        Raises:
            PlanError: A variable that cannot be pickled; names it.
            DataError: A resource that cannot be read.
        """
        pickled = {name: _pickled(name, value) for name, value in variables.items()}
        contents = {name: _content(path) for name, path in (resources or {}).items()}
        content = cloudpickle.dumps((program, pickled, dict(hyperparameters), contents))
        digest = hashlib.blake2b(content, digest_size=8, key=run.encode()[:64]).hexdigest()
        return cls(digest, content, outline(program, inputs) if shape is None else shape)


@dataclass(frozen=True, slots=True)
class StageFunctions:
    """The program's functions of one stage, ready to be called; None where the cell has none.

    Attributes:
        mappers: By the name of the input; ``""`` is the one for every other input.
        combine, partition, order, reduce: As the cell defines them; a declarative reducer stands for its own methods.
        reducer: The declarative reducer, where ``reduce`` is one.
    """

    mappers: Mapping[str, Function]
    combine: Function | None
    partition: Function | None
    order: Function | None
    reduce: Function | None
    reducer: Any = None

    @property
    def pair_combiner(self) -> Function | None:
        """``combine``, where it takes a key with values: one that takes tables is of no use to pairs."""
        return None if self.combine is None or form_of(self.combine) != "records" else self.combine

    def mapper(self, name: str) -> Function | None:
        """The mapper of an input."""
        return self.mappers.get(name) or self.mappers.get("")


@dataclass(frozen=True, slots=True)
class Functions:
    """The program, loaded.

    Attributes:
        stages: In order.
        setup, cleanup: Called with the task, around it; None where the cell has none.
        module: Name of the module they live in.
        resources: Where each resource lies here, by file name.
    """

    stages: tuple[StageFunctions, ...]
    setup: Function | None
    cleanup: Function | None
    module: str
    resources: Mapping[str, Path]


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
    content = job.content if job.path is None else job.path.read_bytes()
    program, variables, hyperparameters, contents = pickle.loads(content)
    # A real module: pickle finds the cell's classes in it by name, so that their instances are equal across workers.
    module = ModuleType(MODULE + job.digest)
    sys.modules[module.__name__] = module
    namespace = vars(module)
    namespace.update({name: pickle.loads(value) for name, value in variables.items()})
    namespace.update(pai=paibook, hp=HyperParameters(**hyperparameters))
    resources = _unpacked(contents)
    try:
        # At the top level too a cell may read its resources.
        with running(Task("load", 0, resources)):
            program.execute(namespace)
        stages = tuple(_stage(namespace, stage, job.outline.mappers) for stage in job.outline.stages)
        setup, cleanup = (_function(namespace, name) for name in ("setup", "cleanup"))
    except (Exception, SystemExit) as error:
        return capture_error(error, f"{where}, at the cell's top level")
    return Functions(stages, setup, cleanup, module.__name__, resources)


def _stage(namespace: Mapping[str, Any], stage: StageOutline, mappers: Collection[str]) -> StageFunctions:
    mapper = _function(namespace, suffixed("map", stage.number))
    own = {name: _function(namespace, f"map_{name}") for name in mappers} if stage.number == 1 else {}
    combine, partition, order = (
        _function(namespace, suffixed(name, stage.number)) for name in ("combine", "partition", "order")
    )
    reduce_ = namespace.get(suffixed("reduce", stage.number))
    reducer = None
    if isinstance(reduce_, Reducer):
        reducer = reduce_
        if order is not None:
            name = suffixed("order", stage.number)
            raise ProgramError(f"{reducer!r} takes values as they come, so that {name!r} has nothing to do; remove it")
        reduce_, combine = reducer.reduce, combine or reducer.combine
    elif reduce_ is not None:
        reduce_ = _function(namespace, suffixed("reduce", stage.number))
    found = {name: function for name, function in {"": mapper, **own}.items() if function is not None}
    return StageFunctions(found, combine, partition, order, reduce_, reducer)


def _function(namespace: Mapping[str, Any], name: str) -> Function | None:
    value = namespace.get(name)
    if value is not None and not callable(value):
        raise TypeError(f"{name!r} is not a function: it is {type(value).__name__}")
    return value


def _unpacked(contents: Mapping[str, bytes]) -> dict[str, Path]:
    """Resources as files of this process, gone when it ends."""
    if not contents:
        return {}
    folder = Path(tempfile.mkdtemp(prefix="paibook-resources-"))
    weakref.finalize(Job, shutil.rmtree, folder, ignore_errors=True)
    paths = {name: folder / name for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    return paths


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


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the resource {str(path)!r}: {error.strerror}") from error
