"""What a run ran: enough to tell two runs apart and to do one again."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from paibook.jobs.job import Job
from paibook.jobs.notebook import digest, parameters_of
from paibook.jobs.secret_references import is_reference

HASHED_BYTES = 100_000_000
GIT_SECONDS = 10.0


# Asked of a job's kernel, which may have no paibook: text of JSON.
INTERPRETER = (
    "(lambda json, platform, sys, metadata: json.dumps([platform.python_version(), sys.executable, sorted("
    "{f\"{d.metadata['Name']}=={d.version}\" for d in metadata.distributions() if d.metadata['Name']})]))"
    "(*map(__import__('importlib').import_module, ('json', 'platform', 'sys', 'importlib.metadata')))"
)


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs a kernel.

    Attributes:
        version: Such as ``3.12.1``.
        executable: Its path.
        packages: ``name==version`` of every package beside it, sorted.
    """

    version: str = ""
    executable: str = ""
    packages: tuple[str, ...] = ()

    @classmethod
    def of_answer(cls, text: str) -> Interpreter:
        """What a kernel answered to ``INTERPRETER``."""
        version, executable, packages = json.loads(text)
        return cls(version, executable, tuple(packages))


def provenance(job: Job, notebook: Mapping[str, Any], interpreter: Interpreter | None = None) -> dict[str, Any]:
    """Notebook, parameters, git commit, packages, data, environment and seed, JSON-able.

    Args:
        interpreter: Of the kernel; None where it has not been asked, or is no Python.
    """
    interpreter = interpreter or Interpreter()
    defaults = {name: parameter.default for name, parameter in parameters_of(notebook).items()}
    parameters = {**defaults, **{n: v if is_reference(v) else repr(v) for n, v in job.parameters.items()}}
    packages = list(interpreter.packages)
    return {
        "notebook": digest(notebook),
        "parameters": parameters,
        "seed": parameters.get("seed", parameters.get("random_state")),
        "git": git_commit(Path(job.notebook).parent),
        "lock": hashlib.sha256("\n".join(packages).encode()).hexdigest() if packages else "",
        "packages": packages,
        "data": dict(fingerprints(job)),
        "environment": {
            "python": interpreter.version,
            "executable": interpreter.executable or job.environment,
            "platform": platform.platform(),
            "kernel": notebook["metadata"]["kernelspec"]["name"],
            "cluster": job.cluster,
        },
    }


def installed() -> list[str]:
    """``name==version`` of every package beside this interpreter, sorted."""
    return sorted({f"{d.metadata['Name']}=={d.version}" for d in distributions() if d.metadata["Name"]})


def git_commit(folder: Path) -> dict[str, Any] | None:
    """The commit that a folder stands on, and whether files differ from it; None without git or a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def fingerprints(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """Size and SHA-256 of each file that a parameter names; of files beyond 100 MB the time of change instead."""
    for name, value in job.parameters.items():
        path = Path(job.notebook).parent / value if isinstance(value, str) and value else None
        try:
            if path is None or not path.is_file():
                continue
            found = path.stat()
            entry: dict[str, Any] = {"path": str(path), "bytes": found.st_size}
            if found.st_size <= HASHED_BYTES:
                with path.open("rb") as file:
                    entry["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
            else:
                entry["changed"] = found.st_mtime
        except (OSError, ValueError):
            continue  # no path after all, or one that cannot be read
        yield name, entry


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between two provenances, by dotted name; ``None`` stands for what one of them lacks."""
    flat = [dict(_flat(one)) for one in (first, second)]
    names = sorted({*flat[0], *flat[1]})
    return {n: (flat[0].get(n), flat[1].get(n)) for n in names if flat[0].get(n) != flat[1].get(n)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name == "packages":
            yield from ((f"packages.{p}", version) for p, _, version in (text.partition("==") for text in value))
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _git(folder: Path, *words: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
