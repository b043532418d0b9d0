"""A portable archive of a job: spec, notebook, lock, references to its data, and a README; and reading it back."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

from paibook.errors import DataError, PlanError
from paibook.jobs.exporters.command import json_text, secret_names
from paibook.jobs.exporters.image import lock_text
from paibook.jobs.exporters.request import ExportOptions
from paibook.jobs.job import Job
from paibook.jobs.notebook import check_job, with_parameters
from paibook.jobs.provenance import fingerprints

SPEC, NOTEBOOK, LOCK, DATA, README = "job.json", "notebook.ipynb", "requirements.txt", "data.json", "README.md"
# Of what is unpacked: an archive that claims more was not made here.
LARGEST = 200 * 2**20
# One time for all entries, so that the same job makes the same bytes.
TIME = (1980, 1, 1, 0, 0, 0)


def export(job: Job, options: ExportOptions) -> dict[str, bytes]:
    """``NAME.zip``. Data and secrets are named in it, never contained.

    Raises:
        PlanError: The notebook cannot be used.
    """
    notebook = with_parameters(check_job(job), {})
    # What lies on this host only would be wrong elsewhere.
    inside = replace(job, notebook=NOTEBOOK, environment="", output="")
    data = {name: {**entry, "path": job.parameters[name]} for name, entry in fingerprints(job)}
    files = {
        SPEC: inside.to_json() + "\n",
        NOTEBOOK: json.dumps(notebook, indent=1, ensure_ascii=False) + "\n",
        LOCK: lock_text(options),
        DATA: json_text(data),
        README: _readme(job, list(data)),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, text)
    return {f"{job.slug}.zip": buffer.getvalue()}


def import_job(path: Path, folder: Path) -> Job:
    """Unpack an archive into a folder of its own, ``folder/NAME``, and give its job.

    Raises:
        DataError: It is no archive of a job, has unsafe names, or its folder is there already.
        PlanError: The job in it cannot be meant.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {entry.filename: _content(archive, entry, path) for entry in _checked(archive, path)}
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{str(path)!r} cannot be read as a zip archive: {error}") from error
    for name in (SPEC, NOTEBOOK):
        if name not in contents:
            raise DataError(f"{str(path)!r} is no archive of a job: it has no {name}")
    try:
        job = Job.from_json(contents[SPEC].decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r}: its {SPEC} is no text") from error
    target = folder.expanduser().absolute() / job.slug
    job = replace(job, notebook=str(target / NOTEBOOK))
    _unpack(contents, target)
    try:
        check_job(job)
    except PlanError as error:
        raise PlanError(f"{str(path)!r} is unpacked in {str(target)!r}, but: {error}") from error
    return job


def missing_data(job: Job) -> list[str]:
    """What an imported job's data lacks here, a line each: files that are not there, or are others."""
    text = (Path(job.notebook).parent / DATA).read_text() if (Path(job.notebook).parent / DATA).exists() else "{}"
    here = dict(fingerprints(job))
    lines = []
    for name, entry in json.loads(text).items():
        if name not in here:
            lines.append(f"parameter {name}: {entry['path']} is not here; it had {entry['bytes']} bytes")
        elif entry.get("sha256") != here[name].get("sha256"):
            lines.append(f"parameter {name}: {entry['path']} is another file than the one it was exported with")
    return lines


def _checked(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    for entry in entries:
        name = PurePosixPath(entry.filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        unsafe = name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename
        if unsafe or kind not in (0, stat.S_IFREG) or entry.is_dir() or len(name.parts) != 1:
            raise DataError(f"{str(path)!r} has the unsafe entry {entry.filename!r}; nothing was unpacked")
    if len({entry.filename for entry in entries}) != len(entries):
        raise DataError(f"{str(path)!r} has two entries of one name; nothing was unpacked")
    if sum(entry.file_size for entry in entries) > LARGEST:
        raise DataError(f"{str(path)!r} unpacks to more than {LARGEST // 2**20} MB; nothing was unpacked")
    return entries


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bytes:
    with archive.open(entry) as file:
        content = file.read(LARGEST + 1)
    if len(content) > entry.file_size:
        raise DataError(f"{str(path)!r}: {entry.filename!r} is larger than it says; nothing was unpacked")
    return content


def _unpack(contents: dict[str, bytes], target: Path) -> None:
    try:
        target.mkdir(parents=True)
    except FileExistsError as error:
        raise DataError(f"{str(target)!r} is there already; choose another folder with -o") from error
    except OSError as error:
        raise DataError(f"{str(target)!r} cannot be made: {error.strerror}") from error
    for name, content in contents.items():
        (target / name).write_bytes(content)


def _readme(job: Job, data: list[str]) -> str:
    lines = [
        f"# paibook job {job.name}",
        "",
        "```sh",
        f"pip install -r {LOCK}",
        f"paibook job import {job.slug}.zip",
        "```",
        "",
        f"- `{NOTEBOOK}`: the notebook, without its outputs",
        f"- `{SPEC}`: parameters, schedule, resources and what happens around a run",
        f"- `{LOCK}`: the packages that it ran with",
        f"- `{DATA}`: the files that its parameters name, with size and SHA-256; they are not in the archive"
        + (f": {', '.join(data)}" if data else " (none)"),
    ]
    if names := secret_names(job):
        lines += ["", f"Set these environment variables where it runs: {', '.join(names)}."]
    return "\n".join(lines) + "\n"
