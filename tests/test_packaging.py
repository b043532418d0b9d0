"""The files that say what paibook is made of agree with each other and with the tree."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
CONDA_NAMES = {"ml_dtypes": "ml-dtypes", "python-duckdb": "duckdb", "pytorch": "torch"}
TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "benchmarks",
    "docs",
    "environment.yml",
    "extensions",
    "kernels",
    "magics",
    "notebooks",
    "paibook",
    "pyproject.toml",
    "requirements.lock",
    "tests",
}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


STORAGE = ("oss", "s3")  # drivers that only those who have such storage install
SITE = ("amd",)  # the wrapper of a library that comes with the site's ROCm; a fake stands in for it in the tests
ORACLES = ("mpi",)  # what answers in the tests were recorded from; those tests are skipped without it


def direct(extras: bool = True) -> list[Requirement]:
    """What pyproject.toml names itself."""
    named = list(project()["dependencies"])
    if extras:
        optional = project()["optional-dependencies"]
        named += [text for name, texts in optional.items() if name not in STORAGE + SITE + ORACLES for text in texts]
    return [Requirement(text) for text in named]


def pins(*names: str) -> dict[str, str]:
    """Package to version, from lock files."""
    found: dict[str, str] = {}
    for name in names:
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith("#"):
                package, version = line.split("==")
                assert canonicalize_name(package) not in found, f"{package} is pinned twice"
                found[canonicalize_name(package)] = version
    return found


def conda_pins() -> dict[str, str]:
    """Package to version, from environment.yml and its pip section."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    found: dict[str, str] = {}
    for entry in environment["dependencies"]:
        texts = entry["pip"] if isinstance(entry, dict) else [entry]
        for text in texts:
            name, _, version = text.partition("==" if isinstance(entry, dict) else "=")
            found[CONDA_NAMES.get(name, name)] = version
    return found


@pytest.mark.parametrize("requirement", direct(), ids=lambda requirement: requirement.name)
def test_every_direct_dependency_is_locked_to_a_version_it_allows(requirement: Requirement) -> None:
    locked = pins("requirements.lock", "tests/requirements.lock")
    name = canonicalize_name(requirement.name)
    assert name in locked, f"{name} is missing from the lock: run `make lock`"
    assert requirement.specifier.contains(locked[name], prereleases=True)


def test_what_paibook_itself_needs_is_in_the_first_lock() -> None:
    locked = pins("requirements.lock")
    assert [r.name for r in direct(extras=False) if canonicalize_name(r.name) not in locked] == []


def test_the_locks_hold_plain_pins_and_nothing_of_a_machine() -> None:
    for name in ("requirements.lock", "tests/requirements.lock"):
        for line in (ROOT / name).read_text().splitlines():
            assert re.fullmatch(r"#.*|[a-z0-9.-]+==[0-9][0-9a-z.]*", line), f"{name}: {line}"


def test_conda_users_get_the_locked_versions() -> None:
    locked = pins("requirements.lock", "tests/requirements.lock")
    environment = conda_pins()
    assert environment.pop("python") == project()["requires-python"].removeprefix(">=")
    for only_there in ("pip", "--editable ."):
        environment.pop(only_there)
    assert environment == {canonicalize_name(r.name): locked[canonicalize_name(r.name)] for r in direct()}


def test_the_top_level_is_what_the_design_says() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert {name.split("/")[0] for name in listed.stdout.splitlines()} == TOP_LEVEL


def test_source_roots_are_no_packages() -> None:
    for folder in ("magics", "kernels", "extensions"):
        assert not (ROOT / folder / "__init__.py").exists(), f"the import name {folder!r} belongs to others"


def test_every_make_target_is_listed_by_make_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    # Under `make test` a plain `make` would be a sub-make and say so in its output.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert set(phony[1].split()) == {line.split()[0] for line in shown.splitlines()[1:]}


def test_no_committed_file_names_a_package_host() -> None:
    # In two halves, so that this file passes its own test.
    hosts = ["registry.npm" + "js.org", "py" + "pi.org/simple", "files.python" + "hosted.org", "--find-" + "links"]
    command = ["git", "grep", "--fixed-strings", "--files-with-matches", "-I"]
    for text in hosts:
        command += ["-e", text]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1, f"named in: {found.stdout or found.stderr}"
