"""A kernel that holds GPUs, started as Jupyter does it. A fake NVML library is loaded in place of the real one."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import KernelProvisionerFactory

from paibook.errors import NoGPU, PlanError
from paibook.gpus import Device, Holder, LeaseBook
from paibook.settings import settings
from paibook_kernel.provisioner import GpuProvisioner

ROOT = Path(__file__).resolve().parents[2]
CARDS = [Device(0, "NVIDIA H200", 140 * 2**30, "GPU-0"), Device(1, "NVIDIA H200", 140 * 2**30, "GPU-1")]
Start = Callable[..., KernelManager]


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that says which cards there are: two."""
    file = tmp_path / "cards.json"
    file.write_text(json.dumps([{"uuid": card.uuid} for card in CARDS]))
    monkeypatch.setenv("FAKE_NVML", str(file))
    monkeypatch.setenv("PAIBOOK_LEASES", str(tmp_path / "leases"))
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "fake_nvml"))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.delitem(sys.modules, "paibook.gpus.nvml", raising=False)
    monkeypatch.delattr("paibook.gpus.nvml", raising=False)
    settings.cache_clear()
    yield file
    settings.cache_clear()
    for name in ("pynvml", "paibook.gpus.nvml"):
        sys.modules.pop(name, None)


@pytest.fixture
def start(cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts kernels whose spec asks for GPUs."""
    # As installing paibook registers it, so that the test does not depend on when that was done last.
    point = importlib.metadata.EntryPoint(
        "paibook-gpu", "paibook_kernel.provisioner:GpuProvisioner", KernelProvisionerFactory.GROUP_NAME
    )
    monkeypatch.setitem(KernelProvisionerFactory.instance().provisioners, point.name, point)
    managers: list[KernelManager] = []

    def start(**config: object) -> KernelManager:
        spec = json.loads((ROOT / "kernels" / "spec" / "kernel.json").read_text())
        spec["metadata"]["kernel_provisioner"] = {"provisioner_name": "paibook-gpu", "config": config}
        folder = tmp_path / "kernels" / "paibook"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kernel.json").write_text(json.dumps(spec))
        specs = KernelSpecManager(kernel_dirs=[str(folder.parent)])
        manager = KernelManager(kernel_name="paibook", kernel_spec_manager=specs)
        roots = os.pathsep.join(str(ROOT / root) for root in (".", "magics", "kernels"))
        manager.start_kernel(env={**os.environ, "PYTHONPATH": roots, "JPY_SESSION_NAME": "analysis.ipynb"})
        managers.append(manager)
        return manager

    yield start
    for manager in managers:
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)


def evaluate(manager: KernelManager, expression: str) -> str:
    """The repr of an expression in the kernel."""
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        reply = client.execute("", user_expressions={"value": expression}, reply=True, timeout=60)
        return str(reply["content"]["user_expressions"]["value"]["data"]["text/plain"])
    finally:
        client.stop_channels()


def test_the_entry_point_is_the_one_that_is_installed() -> None:
    assert 'paibook-gpu = "paibook_kernel.provisioner:GpuProvisioner"' in (ROOT / "pyproject.toml").read_text()


def test_a_kernel_sees_and_holds_its_card_and_gives_it_back(start: Start) -> None:
    manager = start(gpus=1)
    (lease,) = LeaseBook().held()
    assert lease.holder.pid == manager.provisioner.pid
    assert str(lease.holder).startswith("kernel analysis.ipynb")
    seen = "[__import__('os').environ.get(n) for n in ('CUDA_VISIBLE_DEVICES', 'PAIBOOK_KERNEL_LEASE')]"
    assert evaluate(manager, seen) == repr(["GPU-0", lease.id])
    manager.shutdown_kernel(now=True)
    assert LeaseBook().held() == []


def test_a_second_kernel_is_refused_with_the_reason(start: Start) -> None:
    start(gpus=1, cards=["1"])
    with pytest.raises(PlanError, match=r"2 GPUs asked for: GPU 1 \(NVIDIA H200\) is held by kernel analysis.ipynb"):
        start(gpus=2)
    assert [lease.card for lease in LeaseBook().held()] == ["GPU-1"]


def test_two_kernels_share_a_card_that_both_ask_half_of(start: Start) -> None:
    start(gpus=1, share=50)
    start(gpus=1, share=50)
    assert [(lease.card, lease.share) for lease in LeaseBook().held()] == [("GPU-0", 50), ("GPU-0", 50)]


def test_the_card_of_a_kernel_that_was_killed_is_free(start: Start) -> None:
    manager = start(gpus=2)
    os.kill(manager.provisioner.pid, 9)
    deadline = time.monotonic() + 10
    while LeaseBook().held() and time.monotonic() < deadline:
        time.sleep(0.02)
    lease = LeaseBook().take(CARDS, Holder.of("job", "next"), 2)[0]
    LeaseBook().give_back(lease.id)


def test_a_restarted_kernel_has_a_card_again(start: Start) -> None:
    manager = start(gpus=1)
    before = manager.provisioner.pid
    manager.restart_kernel(now=True)
    (lease,) = LeaseBook().held()
    assert lease.holder.pid == manager.provisioner.pid != before


def test_no_card_is_an_honest_refusal_or_the_cpu(start: Start, cards: Path) -> None:
    cards.write_text("[]")
    with pytest.raises(NoGPU, match="asks for 1: no GPU here: the driver is there and finds no card"):
        start(gpus=1)
    manager = start(gpus=1, cpu_fallback=True)
    assert evaluate(manager, "__import__('os').environ.get('PAIBOOK_KERNEL_LEASE')") == "None"


def test_a_kernel_that_asks_for_none_is_started_as_ever(start: Start) -> None:
    assert isinstance(start().provisioner, GpuProvisioner)
    assert LeaseBook().held() == []
