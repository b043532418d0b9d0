"""What snapshots keep of values, and give back."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paibook.comms.messages import pack, unpack
from paibook.errors import DataError
from paibook.runtimes.allreduce.snapshots import Checkpoints, portable, put_back

torch = pytest.importorskip("torch")


def there_and_back(value: Any, present: Any) -> Any:
    return put_back(present, unpack(pack(portable(value), b""), b""))


def test_arrays_and_tensors_come_back_in_place() -> None:
    array = np.zeros(3)
    assert there_and_back(np.arange(3.0), array) is array
    assert array.tolist() == [0, 1, 2]
    tensor = torch.zeros(2, 2, requires_grad=True)
    assert there_and_back(torch.ones(2, 2), tensor) is tensor
    assert tensor.sum() == 4


def test_other_values_come_back_as_new_ones() -> None:
    assert there_and_back({"a": (1, [2])}, None) == {"a": (1, [2])}
    assert there_and_back(np.arange(3), np.zeros(2)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool", "int64", "complex64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_tensors_of_every_kind(dtype: str, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape, dtype=getattr(torch, dtype))
    back = there_and_back(OrderedDict(t=tensor), None)["t"]
    assert back.dtype == tensor.dtype
    assert back.shape == tensor.shape
    assert torch.equal(back, tensor)


def test_modules_and_optimizers_by_their_state_dict() -> None:
    def trained(steps: int) -> tuple[Any, Any]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        return model, optimizer

    model, optimizer = trained(3)
    other, others = trained(0)
    there_and_back(model, other)
    there_and_back(optimizer, others)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert others.state_dict()["state"][0]["step"] == 3


def test_a_folder_keeps_two_whole_snapshots(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "folder")
    assert checkpoints.latest() is None
    for commit in range(4):
        checkpoints.write(commit, "shared", {"step": commit})
        checkpoints.publish(commit, commit, 2)
    assert checkpoints.latest() == {"commit": 3, "step": 3, "size": 2}
    assert checkpoints.read(3, "shared") == {"step": 3}
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == [
        "commit-00000002",
        "commit-00000003",
        "latest.json",
    ]
    with pytest.raises(DataError, match="cannot be read"):
        checkpoints.read(3, "rank-1")
    (tmp_path / "folder" / "latest.json").write_text("{")
    with pytest.raises(DataError, match=r"latest\.json cannot be read"):
        checkpoints.latest()
