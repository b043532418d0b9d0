"""What goes wrong around a run: broken, changing and remote files, full disks, and reducers that never end."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from paibook.errors import DataError, PlanError, RunCancelled
from paibook.runtimes.mapreduce.driver import Driver
from paibook_magics.planning import plan_cell

COUNT = """
def map(record):
    yield "n", 1
def reduce(key, values):
    yield {"key": key, "n": sum(values)}
"""
LARGE = """
import random
def map(record):
    yield record, random.Random(record).randbytes(10_000)
def reduce(key, values):
    yield {"key": key, "value": values[0].hex()}
"""


def text_of(size: int) -> str:
    """Text that compresses badly."""
    return "".join(f"{random.Random(0).getrandbits(64):x}\n" for _ in range(size // 17))


def test_a_truncated_gzip_file_is_named(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "cut.txt.gz"
    path.write_bytes(gzip.compress(os.urandom(50_000).hex().encode())[:-2_000])
    with pytest.raises(DataError, match=r"cannot read .*cut\.txt\.gz as text: Compressed file ended before"):
        run(COUNT, path, out=str(tmp_path / "out.parquet"))
    assert os.listdir(tmp_path) == ["cut.txt.gz"]


def test_of_mixed_encodings_the_first_wrong_line_is_named(run: Any, files: Callable[..., list[Path]]) -> None:
    files(a="Grüße\n", b="Grüße\n")
    (run.directory / "corpus" / "c.txt").write_bytes("fine\nGrüße\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"c\.txt, line 2: byte 0xfc is not UTF-8.*convert the file to UTF-8"):
        run(COUNT, run.directory / "corpus")


def test_empty_files_are_an_empty_input(run: Any, files: Callable[..., list[Path]]) -> None:
    files(a="", b="")
    assert run(COUNT, run.directory / "corpus") == []
    (run.directory / "corpus" / "c.jsonl").touch()
    (run.directory / "corpus" / "d.csv").touch()
    assert run(COUNT, run.directory / "corpus") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("os.remove(path)", r"a\.txt vanished while the run was reading it"),
        ("os.truncate(path, 10)", r"a\.txt changed while the run was reading it"),
        ("os.utime(path, (1, 1))", r"a\.txt changed while the run was reading it"),
    ],
)
def test_a_file_that_changes_during_the_run_ends_it(
    run: Any, files: Callable[..., list[Path]], tmp_path: Path, change: str, message: str
) -> None:
    (path,) = files(a="line\n" * 1000)
    source = COUNT.replace("    yield", f"    if os.path.exists(path): {change}\n    yield", 1)
    options = {"variables": {"path": str(path)}, "push": ("path",), "out": str(tmp_path / "out.parquet")}
    with pytest.raises(DataError, match=message):
        run("import os\n" + source, path, **options)
    assert not list(tmp_path.glob("*out*"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    if not sys.platform.startswith("linux"):
        pytest.skip("mounts as Linux has them")
    folder = tmp_path / "disk"
    folder.mkdir()
    found = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"no file system may be mounted here: {found.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl", "out.csv"])
def test_a_disk_that_fills_up_leaves_the_old_output(run: Any, disk: Path, name: str) -> None:
    target = disk / name
    kept = run.over(LARGE, range(10), out=str(target))
    with pytest.raises(DataError, match=rf"{name}.*No space left on device"):
        run.over(LARGE, range(500), out=str(target), overwrite=True)
    assert sorted(kept.read()["key"]) == list(range(10))
    assert os.listdir(disk) == [name]


def test_a_full_disk_for_the_shuffle_is_told_with_advice(run: Any, disk: Path, tmp_path: Path) -> None:
    run.directory = disk / "run"
    run.directory.mkdir()
    with pytest.raises(DataError, match=r"shuffle.*No space left on device; free space there, or set PAIBOOK_RUNS"):
        run.over(LARGE, range(500), out=str(tmp_path / "out.parquet"))
    assert os.listdir(run.directory) == []
    assert not list(tmp_path.glob("*out*"))


def test_an_output_beside_a_file_is_refused(run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"the folder .*file of the output 'out\.parquet' does not exist"):
        run.over(COUNT, [1], out=str(tmp_path / "file" / "out.parquet"))


ENDLESS = "def map(record):\n    yield record, 1\ndef reduce(key, values):\n    while True:\n        yield key\n"
SILENT = ENDLESS.replace("yield key\n", "pass\n    yield key\n")


def stop_in_reduce(run: Any, source: str) -> None:
    plan = run.plan(source, {"variable": "items"}, out=str(run.directory / "out.jsonl"))
    context = run.context({"items": [1, 2, 3]})
    timers: list[threading.Timer] = []

    def progress(progress: Any) -> None:
        if progress.stage == "reduce" and progress.details["running"] and not timers:
            timers.append(threading.Timer(0.3, context.cancel))
            timers[0].start()

    context.progress = progress
    with pytest.raises(RunCancelled):
        Driver().run(plan, run.cluster, context)
    assert not list(run.directory.glob("*out*"))
    assert not (run.directory / "work").exists()
    assert run.over(COUNT, [1, 2]) == [{"key": "n", "n": 2}]  # whoever was stopped takes the next run


@pytest.mark.parametrize("source", [ENDLESS, SILENT], ids=["yields", "silent"])
def test_a_reducer_that_never_ends_is_stopped(run: Any, source: str) -> None:
    stop_in_reduce(run, source.replace("yield key\n", "yield {'key': key}\n"))


@pytest.mark.slow
@pytest.mark.parametrize("source", [ENDLESS, SILENT], ids=["yields", "silent"])
def test_a_reducer_that_never_ends_is_stopped_on_processes(on_cluster: Any, source: str) -> None:
    stop_in_reduce(on_cluster, source.replace("yield key\n", "yield {'key': key}\n"))


@pytest.fixture
def far() -> Iterator[Any]:
    """A file system that is not local: everything goes through fsspec, as for an object store."""
    memory = fsspec.filesystem("memory")
    yield memory
    memory.rm("/far", recursive=True)


def test_remote_files_are_cut_and_grouped(run: Any, far: Any) -> None:
    far.pipe("/far/large.txt", b"line\n" * 100_000)
    for i in range(20):
        far.pipe(f"/far/small/{i}.jsonl", b'{"a": 1}\n' * 10)
    assert run(COUNT, "memory://far/*.txt") == [{"key": "n", "n": 100_000}]
    assert run.summary["stages"][0]["tasks"] > 4
    assert run(COUNT, "memory://far/small") == [{"key": "n", "n": 200}]
    assert run.summary["stages"][0]["tasks"] == 1
    assert run(COUNT, "memory://far", "memory://far/large.txt") == [{"key": "n", "n": 200_200}]


def test_remote_files_that_are_not_there_are_named(run: Any, far: Any) -> None:
    far.pipe("/far/a.txt", b"a\n")
    with pytest.raises(DataError, match=r"no file matches 'memory://far/\*\.csv'"):
        run(COUNT, "memory://far/*.csv")


@pytest.mark.parametrize("url", ["s3://bucket/a.txt", "oss://bucket/a.txt", "hdfs://host/a.txt"])
def test_a_protocol_without_its_library_says_what_to_install(run: Any, url: str) -> None:
    protocol = url.partition(":")[0]
    if protocol != "hdfs":
        if __import__("importlib.util").util.find_spec(f"{protocol}fs"):
            pytest.skip(f"{protocol}fs is installed")
        with pytest.raises(DataError, match=rf"pip install 'paibook\[{protocol}\]'"):
            run(COUNT, url)
    else:
        with pytest.raises(DataError, match=r"libjvm|libhdfs|Hadoop"):
            run(COUNT, url)


@pytest.mark.parametrize("line", ["-g 1", "-n 2 -g 2"])
def test_gpus_are_refused_with_what_to_do(line: str) -> None:
    plan, _ = plan_cell("pai_mapreduce", f"-i x.txt {line}", COUNT, {}, "inline")
    with pytest.raises(PlanError, match=r"gives its tasks no GPUs; got -g \d\. Leave out -g to run on the CPU"):
        Driver().check(plan)
