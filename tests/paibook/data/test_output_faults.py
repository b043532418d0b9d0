"""Disks that are full and folders that may not be written to: a clear error, no litter, the old output intact."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paibook.data.dataset import Dataset
from paibook.data.staging import Staging, check_target
from paibook.errors import DataError

FORMATS = ["parquet", "jsonl", "csv"]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts and limits as Linux has them")


def records(count: int) -> list[dict[str, Any]]:
    """About 100 bytes each, that compress badly."""
    numbers = random.Random(0)
    return [{"n": n, "text": numbers.randbytes(50).hex()} for n in range(count)]


def write(target: Path, count: int, overwrite: bool = False) -> Dataset:
    with Staging(target, "run1", overwrite) as staging:
        writer = staging.writer(0)
        writer.buffer = 1 << 16
        sink = writer.open()
        for _ in range(0, count, 500):
            sink.add(records(min(count, 500)))
        return staging.commit(sink.close())


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    folders = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(folders)}"
        folder.mkdir()
        found = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if found.returncode:
            pytest.skip(f"no file system may be mounted here: {found.stderr.strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk(mounted: Callable[[str], Path], format: str) -> None:
    disk = mounted("size=1m")
    target = disk / f"out.{format}"
    write(target, 20)
    with pytest.raises(DataError, match=r"cannot write .*part-0.*No space left.*are written.*free there; make room"):
        write(target, 50_000, overwrite=True)
    assert os.listdir(disk) == [target.name]
    assert len(Dataset(target, 0, 0).read()) == 20


@pytest.mark.parametrize("format", FORMATS)
def test_a_limit_on_the_size_of_files(tmp_path: Path, format: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DataError, match=r"cannot write .*part-0.*File too large: .* are written"):
            write(tmp_path / f"out.{format}", 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_a_file_system_that_is_read_only(mounted: Callable[[str], Path]) -> None:
    disk = mounted("size=1m")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(DataError, match="no permission to write to the folder"):
        check_target(str(disk / "out.csv"), overwrite=False)
    with pytest.raises(DataError, match=r"cannot write to .*Read-only file system"):
        write(disk / "out.csv", 1)


def as_another_user(action: Callable[[], None]) -> str:
    """Run in a child that is not root, whom file modes bind too; returns the DataError it ended with."""
    read, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            action()
            os.write(write_end, b"no error")
        except BaseException as error:
            os.write(write_end, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return pipe.read()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach, which pytest's own are not."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_folder_without_permission(open_folder: Path) -> None:
    kept = write(open_folder / "out.parquet", 3)
    open_folder.chmod(0o555)
    target = kept.path

    def check() -> None:
        check_target(str(target), overwrite=True)

    def overwrite() -> None:
        write(target, 5, overwrite=True)

    found = as_another_user(check)
    assert found == f"DataError: cannot write the output {target}: no permission to write to the folder {target.parent}"
    assert as_another_user(overwrite).startswith(f"DataError: cannot write to {target.parent}: [Errno 13] Permission")
    assert len(kept.read()) == 3
    assert os.listdir(open_folder) == ["out.parquet"]


def test_a_name_too_long_for_a_folder(tmp_path: Path) -> None:
    with Staging(tmp_path / "out.csv", "run1", partition_by=("k",)) as staging:
        sink = staging.writer(0).open()
        sink.add([{"k": "x" * 300, "n": 1}])
        with pytest.raises(DataError, match="File name too long"):
            sink.close()
    assert os.listdir(tmp_path) == []
