"""Write the locks and environment.yml from what is installed beside this interpreter: ``python .ci/lock.py``.

``requirements.lock`` pins what running paibook takes (every extra but test and lint); ``tests/requirements.lock``
pins what its tests and linters need beyond that. Each holds the transitive closure of what ``pyproject.toml`` names.
Left out: what goes with a site's own storage, MPI or cards, local version labels (``+cpu``), and the card libraries
that torch's own wheels pin exactly. ``environment.yml`` gives conda users the same versions of what ``pyproject.toml``
names.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
DEVELOPMENT = ("test", "lint")
SITE = ("oss", "s3", "mpi", "amd")  # for a site's own storage, MPI or cards: whoever has those installs them
PINNED_BY_TORCH = ("nvidia-", "cuda-", "triton")
KEPT = ("nvidia-ml-py",)
CONDA_NAMES = {"duckdb": "python-duckdb", "ml-dtypes": "ml_dtypes", "torch": "pytorch"}
# Not on conda-forge, or late there: conda users get these from pip.
PIP_ONLY = (
    "anywidget",
    "cronsim",
    "fastdigest",
    "import-linter",
    "ipyparallel",
    "jupyter-scheduler",
    "kubernetes-validate",
    "nvidia-ml-py",
    "stop-words",
    "vl-convert-python",
)


def closure(requirements: Iterable[str]) -> dict[str, str]:
    """Names and versions of everything the requirements reach in this environment.

    Raises:
        PackageNotFoundError: A required package is not installed.
    """
    pins: dict[str, str] = {}
    todo = [Requirement(text) for text in requirements]
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen or (name.startswith(PINNED_BY_TORCH) and name not in KEPT):
                continue
            seen.add((name, extra))
            found = distribution(name)
            pins[name] = Version(found.version).public
            todo.extend(needed(found.requires or [], extra))
    return pins


def needed(texts: Iterable[str], extra: str) -> Iterator[Requirement]:
    """The requirements among ``texts`` that hold here for one extra (empty: those without any)."""
    for text in texts:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def write(path: Path, pins: dict[str, str], purpose: str) -> None:
    lines = [f"# {purpose} Written by `make lock`; do not edit.", *(f"{n}=={v}" for n, v in sorted(pins.items()))]
    path.write_text("\n".join(lines) + "\n")
    print(f"{path.relative_to(ROOT)}: {len(pins)} packages")


def environment(names: Iterable[str], pins: dict[str, str]) -> str:
    """The text of ``environment.yml`` for the packages named."""
    ordered = sorted(canonicalize_name(Requirement(name).name) for name in set(names))
    lines = [
        "# The versions of requirements.lock, for what pyproject.toml names. Written by `make lock`; do not edit.",
        "# conda env create -f environment.yml && conda activate paibook",
        "name: paibook",
        "channels:",
        "  - conda-forge",
        "dependencies:",
        "  - python=3.11",
        "  - pip",
        *(f"  - {CONDA_NAMES.get(name, name)}={pins[name]}" for name in ordered if name not in PIP_ONLY),
        "  - pip:",
        *(f"      - {name}=={pins[name]}" for name in ordered if name in PIP_ONLY),
        "      - --editable .",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    others = {name: rs for name, rs in extras.items() if name not in DEVELOPMENT + SITE}
    running = [*project["dependencies"], *(requirement for rs in others.values() for requirement in rs)]
    base = closure(running)
    development = closure(requirement for name in DEVELOPMENT for requirement in extras[name])
    write(ROOT / "requirements.lock", base, "What running paibook takes, with every extra.")
    beyond = {name: version for name, version in development.items() if name not in base}
    write(ROOT / "tests" / "requirements.lock", beyond, "What tests and linters need beyond requirements.lock.")
    named = [*running, *(requirement for name in DEVELOPMENT for requirement in extras[name])]
    (ROOT / "environment.yml").write_text(environment(named, base | development))


if __name__ == "__main__":
    main()
