"""The built wheel carries every import name, the kernelspec and JupyterLab's extension."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed here, and the tests take nothing from the network")
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_each_source_root_gives_its_import_name(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist() if ".dist-info" not in name and ".data" not in name}
    assert tops == {"paibook", "paibook_kernel", "paibook_magics"}


def test_the_kernelspec_lands_where_jupyter_looks(wheel: zipfile.ZipFile) -> None:
    spec = [name for name in wheel.namelist() if "/share/jupyter/kernels/paibook/" in name]
    assert {Path(name).name for name in spec} == {path.name for path in (ROOT / "kernels/spec").iterdir()}
    kernel = json.loads(wheel.read(next(name for name in spec if name.endswith("kernel.json"))))
    assert kernel["argv"][:3] == ["python", "-m", "paibook_kernel"]


def test_what_the_widgets_show_travels_and_what_it_is_built_from_does_not(wheel: zipfile.ZipFile) -> None:
    static = {path.name for path in (ROOT / "paibook/widgets/static").iterdir() if path.is_file()}
    inside = [Path(name) for name in wheel.namelist() if name.startswith("paibook/widgets/")]
    assert static <= {path.name for path in inside if path.parent.name == "static"}
    assert [path for path in inside if "js" in path.parts or "node_modules" in path.parts] == []


def test_the_extension_lands_where_jupyterlab_looks_and_is_what_it_says(wheel: zipfile.ZipFile) -> None:
    inside = {
        name.split("/labextensions/")[1]: name for name in wheel.namelist() if "/share/jupyter/labextensions/" in name
    }
    described = json.loads(wheel.read(inside["paibook-lab/package.json"]))["jupyterlab"]
    assert set(inside) == {"paibook-lab/package.json", f"paibook-lab/{described['_build']['load']}"}
    assert described["disabledExtensions"] == ["@jupyterlab/scheduler:IAdvancedOptions"]
    assert b"paibook-lab" in wheel.read(inside[f"paibook-lab/{described['_build']['load']}"])
