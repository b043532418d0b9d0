"""The kernel, started from its spec as Jupyter does it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    # The spec as it stands in the tree, so that the test does not depend on when paibook was installed last.
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "paibook").symlink_to(ROOT / "kernels" / "spec")
    manager = KernelManager(
        kernel_name="paibook",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(folder)]),
        transport_encryption="required",  # the spec says that the kernel can
    )
    roots = os.pathsep.join(str(ROOT / root) for root in (".", "magics", "kernels"))
    manager.start_kernel(env={**os.environ, "PYTHONPATH": roots}, cwd=str(folder))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def evaluate(client: BlockingKernelClient, expression: str) -> str:
    """The repr of an expression in the kernel."""
    reply = client.execute("", user_expressions={"value": expression}, reply=True, timeout=60)
    value = reply["content"]["user_expressions"]["value"]
    assert value["status"] == "ok", value
    return value["data"]["text/plain"]


def test_the_interpreter_is_the_one_jupyter_runs_in(kernel: tuple[KernelManager, BlockingKernelClient]) -> None:
    manager, client = kernel
    assert manager.kernel_spec.argv[0] == "python"
    assert evaluate(client, "__import__('sys').executable") == repr(sys.executable)


def test_pai_is_defined_and_hidden_from_who(kernel: tuple[KernelManager, BlockingKernelClient]) -> None:
    _, client = kernel
    assert evaluate(client, "pai.__name__") == "'paibook'"
    assert evaluate(client, "'pai' in get_ipython().user_ns_hidden") == "True"


@pytest.mark.parametrize("magic", ["pai_mapreduce", "pai_allreduce", "pai_ps"])
def test_the_cells_are_there_from_the_start(kernel: tuple[KernelManager, BlockingKernelClient], magic: str) -> None:
    _, client = kernel
    assert evaluate(client, f"get_ipython().find_cell_magic({magic!r}) is not None") == "True"


def test_load_ext_does_no_harm_where_the_extension_is_loaded(
    kernel: tuple[KernelManager, BlockingKernelClient],
) -> None:
    _, client = kernel
    reply = client.execute("%load_ext paibook", reply=True, timeout=60)
    assert reply["content"]["status"] == "ok"
