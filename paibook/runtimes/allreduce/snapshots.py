"""Values as a snapshot keeps them, and snapshots as files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.comms.messages import Message, pack, unpack
from paibook.comms.torchrun import imported
from paibook.errors import DataError

LATEST = "latest.json"
_UNSIGNED = b""  # a file belongs to whoever may write the folder


@dataclass(frozen=True)
class _Tensor:
    """A torch tensor: its memory as bytes, which pickle leaves out of its stream, and how torch reads them."""

    data: NDArray[np.uint8]
    dtype: str
    shape: tuple[int, ...]


def portable(value: Any) -> Any:
    """What to keep of a value: the ``state_dict`` where it has one, tensors as arrays, else the value itself."""
    if _has_state_dict(value):
        return portable(value.state_dict())
    torch = imported("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().contiguous()
        return _Tensor(tensor.reshape(-1).view(torch.uint8).numpy(), str(tensor.dtype), tuple(tensor.shape))
    return _mapped(value, portable)


def put_back(present: Any, kept: Any) -> Any:
    """Give a value what was kept of it: in place where it can be, so that other names for it see it too.

    Args:
        present: As the cell has made it anew.
        kept: What ``portable`` gave, unpickled; its memory may be taken.

    Returns:
        ``present``, or the value that takes its place.
    """
    restored = _native(kept)
    if _has_state_dict(present):
        present.load_state_dict(restored)
        return present
    torch = imported("torch")
    if torch is not None and isinstance(present, torch.Tensor) and _alike(present, restored):
        present.detach().copy_(restored)
        return present
    if isinstance(present, np.ndarray) and present.flags.writeable and _alike(present, restored):
        present[...] = restored
        return present
    return restored


class Checkpoints:
    """A folder of snapshots that all ranks see: written beside each other, and one file says which is whole.

    Args:
        folder: Made where it is missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def latest(self) -> dict[str, Any] | None:
        """``commit``, ``step`` and ``size`` of the last whole snapshot; None where there is none.

        Raises:
            DataError: The file that says so cannot be read.
        """
        path = self._folder / LATEST
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"pai.state: the checkpoint {path} cannot be read: {error}") from error
        return found

    def write(self, commit: int, name: str, values: Mapping[str, Any]) -> None:
        """Write one part of a snapshot."""
        folder = self._of(commit)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / name, pack(values, _UNSIGNED).data)

    def read(self, commit: int, name: str) -> dict[str, Any]:
        """One part of a snapshot.

        Raises:
            DataError: It is not there.
        """
        path = self._of(commit) / name
        try:
            message: Message = np.fromfile(path, np.uint8)
        except OSError as error:
            raise DataError(f"pai.state: the checkpoint {path} cannot be read: {error}") from error
        values: dict[str, Any] = unpack(message, _UNSIGNED)
        return values

    def publish(self, commit: int, step: int | None, size: int) -> None:
        """Say that every part of a snapshot is there; those before the last one published are deleted."""
        before = self.latest()
        _write(self._folder / LATEST, json.dumps({"commit": commit, "step": step, "size": size}).encode())
        oldest = self._of(before["commit"] if before else commit)
        for folder in self._folder.glob("commit-*"):
            if folder < oldest:  # others may be writing the next one already
                shutil.rmtree(folder, ignore_errors=True)

    def _of(self, commit: int) -> Path:
        return self._folder / f"commit-{commit:08d}"


def _write(path: Path, data: bytes | memoryview) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _alike(present: Any, restored: Any) -> bool:
    if type(present) is not type(restored):
        return False
    return bool(present.shape == restored.shape and present.dtype == restored.dtype)


def _has_state_dict(value: Any) -> bool:
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def _native(kept: Any) -> Any:
    if isinstance(kept, _Tensor):
        import torch

        dtype = getattr(torch, kept.dtype.removeprefix("torch."))
        if not kept.data.size:
            return torch.empty(kept.shape, dtype=dtype)
        return torch.from_numpy(kept.data).view(dtype).reshape(kept.shape)
    return _mapped(kept, _native)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    # By exact type: a subclass may have a constructor of its own.
    if type(value) in (list, tuple):
        return type(value)(map(change, value))
    if isinstance(value, dict) and type(value).__name__ in ("dict", "OrderedDict"):
        return type(value)((key, change(item)) for key, item in value.items())
    return value
