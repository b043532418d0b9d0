"""Looking into ranks between cells: what they hold, and where their last cell failed."""

from __future__ import annotations

import builtins
import inspect
import io
import keyword
import pdb  # noqa: T100 - the debugger is what this offers
import reprlib
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from operator import itemgetter
from types import ClassMethodDescriptorType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any, TypeVar

import psutil

from paibook.clusters.contract import Cluster, Place, RankStatus
from paibook.comms.communicator import Communicator
from paibook.comms.deferred import DeferredCommunicator
from paibook.errors import PlanError
from paibook.program import of_user_code

T = TypeVar("T")
ANSWER_SECONDS = 10.0
_GIVEN = {"comm", "rank", "world_size", "hp", "pai", "ps"}  # by paibook, to every cell
_ENGINE = {"In", "Out", "exit", "quit", "get_ipython", "open"}  # by IPython, whose engine a rank may be
_GOES_ON = {
    "c",
    "cont",
    "continue",
    "s",
    "step",
    "n",
    "next",
    "r",
    "return",
    "unt",
    "until",
    "j",
    "jump",
    "debug",
    "interact",
    "run",
    "restart",
}


@dataclass(frozen=True)
class Variable:
    """A variable of a rank: its type with its shape or length, and the bytes of its own it takes."""

    name: str
    kind: str
    bytes: int


@dataclass(frozen=True)
class Holding:
    """What a rank holds.

    Attributes:
        memory: Bytes of main memory that its process takes.
        devices: Names of the cards it was given.
        variables: Those that cells made, by name.
    """

    memory: int
    devices: tuple[str, ...]
    variables: tuple[Variable, ...]


def holding(place: Place) -> Holding:
    """Runs on a rank."""
    found = sorted(
        (
            (name, value)
            for name, value in place.namespace.items()
            if isinstance(name, str) and not name.startswith("_") and name not in _GIVEN | _ENGINE
            if not isinstance(value, ModuleType)
        ),
        key=itemgetter(0),
    )
    variables = tuple(Variable(name, _kind(value), _bytes(value)) for name, value in found)
    return Holding(psutil.Process().memory_info().rss, _devices(), variables)


def complete(place: Place, text: str, limit: int) -> list[str]:
    """Runs on a rank: what a name, or an attribute of one, may go on as. Runs no properties, at most a ``__dir__``."""
    path, _, begun = text.rpartition(".")
    names = (
        [*place.namespace, *keyword.kwlist, *dir(builtins)]
        if not path
        else _attributes(place.namespace, path.split("."))
    )
    texts = {name for name in names if isinstance(name, str)}
    found = {name for name in texts if name.startswith(begun) and (begun or not name.startswith("_"))}
    return [f"{path}.{name}" if path else name for name in sorted(found)[:limit]]


def describe(place: Place, text: str, detailed: bool) -> str | None:
    """Runs on a rank: what a name, or an attribute of one, is; None where there is none. Runs no properties.

    Args:
        detailed: With the source, where there is some.
    """
    value = _reached(place.namespace, text.split("."))
    if value is _NOTHING:
        return None
    parts = {
        "Signature": _signature(text.rpartition(".")[2], value),
        "Type": _kind(value),
        "Value": "" if _has_documentation(value) else _short(value),
        "Docstring": _documentation(value),
        "Source": _source(value) if detailed else "",
    }
    return "\n".join(
        f"{title}:\n{part}" if "\n" in part else f"{title + ':':<10} {part}" for title, part in parts.items() if part
    )


def _attributes(namespace: dict[str, Any], path: Sequence[str]) -> list[str]:
    value = _reached(namespace, path)
    try:
        return [] if value is _NOTHING or _is_property(value) else dir(value)
    except Exception:  # an object's own __dir__ may raise anything
        return []


_NOTHING = object()


def _reached(namespace: dict[str, Any], path: Sequence[str]) -> Any:
    """What a path names; ``_NOTHING`` where to reach it would run a property, or a rank's ``comm`` would connect."""
    value = namespace.get(path[0], getattr(builtins, path[0], _NOTHING))
    for name in path[1:]:
        if value is _NOTHING or _is_property(value):
            return _NOTHING
        value = _attribute(value, name)
    return value


def _attribute(owner: Any, name: str) -> Any:
    """An attribute without running anything; a method as its callers see it."""
    # It makes its operations when they are first asked for.
    source = Communicator if isinstance(owner, DeferredCommunicator) else owner
    kind = source if inspect.isclass(source) else type(owner)
    instance = None if kind is owner else owner
    found = inspect.getattr_static(source, name, _NOTHING)
    if isinstance(found, _METHODS) and inspect.getattr_static(kind, name, None) is found:
        return found.__get__(instance, kind)
    return found


_METHODS = (FunctionType, staticmethod, classmethod, MethodDescriptorType, ClassMethodDescriptorType)


def _is_property(value: Any) -> bool:
    return hasattr(type(value), "__get__") and not inspect.isroutine(value) and not inspect.isclass(value)


def _signature(name: str, value: Any) -> str:
    try:
        return f"{name}{inspect.signature(value)}" if callable(value) else ""
    except Exception:  # builtins may have none, and an object's own may raise anything
        return ""


def _short(value: Any) -> str:
    shortened = reprlib.Repr()
    shortened.maxother = shortened.maxstring = 400
    try:
        return shortened.repr(value)
    except Exception:  # an object's own __repr__ may raise anything
        return ""


def _documentation(value: Any) -> str:
    try:
        found = inspect.getdoc(value) or ""
    except Exception:  # an object's own __doc__ may be anything
        return ""
    # Of a variable, what its class is in a line.
    return found if _has_documentation(value) else found.partition("\n")[0]


def _has_documentation(value: Any) -> bool:
    return callable(value) or isinstance(value, (ModuleType, property))


def _source(value: Any) -> str:
    try:
        return inspect.getsource(value).rstrip()
    except (OSError, TypeError):  # it is not written in Python, or no longer to be had
        return ""


def remember_failure(error: BaseException) -> None:
    """Keep a cell's error, and with it the variables of its frames, until another cell begins here."""
    global _failed, _last
    _failed, _last = error, None


def forget_failure() -> None:
    """Let go of the last cell's error."""
    global _failed, _last
    _failed = _last = None


def debug(place: Place, commands: Sequence[str]) -> str:
    """Run commands of ``pdb`` where the last cell failed on this rank; returns what they print.

    The frame that ``up`` and ``down`` chose is kept from call to call.
    """
    if _failed is None or _failed.__traceback__ is None:
        return f"the last cell did not fail on rank {place.rank}\n"
    debugger = _debugger(_failed)
    printed = io.StringIO()
    debugger.stdout = printed
    with redirect_stdout(printed):
        for command in (part.strip() for line in commands for part in line.split(";;")):
            name = command.split(maxsplit=1)[0] if command else ""
            if name in _GOES_ON:
                printed.write(f"the cell has ended: {name!r} cannot go on with it\n")
            else:
                debugger.onecmd(debugger.precmd(command))
    return printed.getvalue()


def on_ranks(
    cluster: Cluster,
    function: Callable[..., T],
    *args: Any,
    ranks: Sequence[int] = (),
    timeout: float = ANSWER_SECONDS,
) -> dict[int, T]:
    """Call ``function(place, *args)`` on idle ranks of the session; ranks that are busy, or lost, are left out.

    Args:
        ranks: Which; none means all.
        timeout: Seconds to wait for each.

    Raises:
        TimeoutError: One did not answer.
    """
    there = workers(cluster)
    idle = [status.rank for status in there if status.state == "idle" and (not ranks or status.rank in ranks)]
    if not idle or any(status.state == "lost" for status in there[: max(idle) + 1]):
        return {}  # asking for them would start new ones in the place of the lost
    pending = cluster.ranks(max(idle) + 1).apply(function, *args, ranks=idle)
    return {rank: one.result(timeout) for rank, one in zip(idle, pending, strict=True)}


def workers(cluster: Cluster) -> list[RankStatus]:
    """The session's ranks that cells run on, in order."""
    return sorted((s for s in cluster.status().ranks if s.role == "worker"), key=lambda status: status.rank)


def check_idle(cluster: Cluster, rank: int) -> None:
    """Refuse a rank that cannot be asked.

    Raises:
        PlanError: It is not there, busy or lost.
    """
    there = {status.rank: status.state for status in workers(cluster)}
    if not there:
        raise PlanError("there are no ranks yet; the first %%pai_allreduce or %%pai_ps cell starts them")
    if rank not in there:
        raise PlanError(f"there is no rank {rank}; there are {', '.join(map(str, there))}")
    if there[rank] != "idle":
        raise PlanError(f"rank {rank} is {there[rank]}")


class _PostMortem(pdb.Pdb):
    """Shows the frames of the cell, without those of paibook that called it."""

    def __init__(self, failed: BaseException) -> None:
        super().__init__(stdin=io.StringIO(), stdout=io.StringIO(), nosigint=True, readrc=False)
        self.failed = failed
        self.reset()
        self.setup(None, of_user_code(failed.__traceback__) or failed.__traceback__)


_failed: BaseException | None = None  # of this process's last cell that failed
_last: _PostMortem | None = None


def _debugger(failed: BaseException) -> _PostMortem:
    global _last
    if _last is None or _last.failed is not failed:
        _last = _PostMortem(failed)
    return _last


def _kind(value: Any) -> str:
    try:
        return _described(value)
    except Exception:  # an object's own shape or length may raise anything
        return type(value).__name__


def _described(value: Any) -> str:
    if isinstance(value, type):  # the class of an array has no shape of its own
        return "class"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    kind = str(dtype).removeprefix("torch.") if dtype is not None and isinstance(shape, tuple) else type(value).__name__
    if isinstance(shape, tuple):
        return f"{kind}[{', '.join(map(str, shape))}]"
    return f"{kind}[{len(value)}]" if isinstance(value, (list, tuple, dict, set, str, bytes)) else kind


def _bytes(value: Any) -> int:
    try:
        own = getattr(value, "nbytes", None)
        return own if isinstance(own, int) else sys.getsizeof(value)
    except Exception:  # as above
        return 0


def _devices() -> tuple[str, ...]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
