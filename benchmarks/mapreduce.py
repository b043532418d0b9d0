"""The MapReduce suite: the same jobs on paibook and its peers, each with two workers, start-up apart."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import answers, corpus
from benchmarks.comparison import Target
from benchmarks.memory import PeakMemory
from benchmarks.sides import PAIBOOK as NOTEBOOK
from benchmarks.sides import PEERS
from benchmarks.suite import Measure, Outcome, Outcomes

WORKERS = 2
ROOT = Path(__file__).parents[1]
SECONDS = 900.0  # after which a side's process has failed

TF_IDF, COLD, MEMORY, SCALING = "TF-IDF", "TF-IDF, first time", "TF-IDF, peak memory", "TF-IDF, 1 to 2 workers"
WORD_COUNT, GROUP_TEXTS, GROUP_INTEGERS = "word count", "group 5M (text, int)", "group 20M (int, int)"
GROUP_SPARSE = "group 20M (sparse int, int)"


@dataclass(frozen=True)
class Engine:
    """One side.

    Attributes:
        name: As shown.
        package: Distribution whose version is shown and whose absence skips the side.
        module: Of ``benchmarks.mapreduce_jobs``; serves the jobs.
        jobs: Names of the measures it takes part in.
        python: The interpreter it is installed in.
        again: Whether the second run of a job is worth the wait: it has something that warms up.
        arguments: More of the module's command line.
    """

    name: str
    package: str
    module: str
    jobs: tuple[str, ...]
    python: Path = PEERS
    again: bool = True
    arguments: tuple[str, ...] = ()


PAIBOOK = Engine(
    "paibook",
    "paibook",
    "paibook_cells",
    (TF_IDF, SCALING, WORD_COUNT, GROUP_TEXTS, GROUP_INTEGERS, GROUP_SPARSE),
    NOTEBOOK.python,
)
SIDES = (
    PAIBOOK,
    Engine("PySpark RDD", "pyspark", "spark_rdd", (TF_IDF, WORD_COUNT, GROUP_TEXTS)),
    Engine("PySpark RDD + pyarrow", "pyspark", "spark_rdd", (TF_IDF,), arguments=("tuned",)),
    Engine("Dask DataFrame P2P", "dask", "dask_frames", (TF_IDF, WORD_COUNT, GROUP_INTEGERS, GROUP_SPARSE)),
    Engine("dask.bag groupby", "dask", "dask_bag", (TF_IDF,), again=False),
    Engine("Ray tasks", "ray", "ray_tasks", (TF_IDF,)),
    Engine("mrjob local", "mrjob", "mrjob_local", (TF_IDF,), again=False),
    Engine("Pool + pyarrow", "pyarrow", "process_pool", (TF_IDF, SCALING, WORD_COUNT, GROUP_TEXTS)),
    Engine("Polars, one process", "polars", "polars_frames", (GROUP_INTEGERS, GROUP_SPARSE)),
    Engine("DuckDB, one process", "duckdb", "duckdb_sql", (GROUP_INTEGERS, GROUP_SPARSE)),
)

EVEN = Target(1.0, "ratio")
MEASURES = (
    Measure(
        TF_IDF,
        "s",
        EVEN,
        targets={
            "PySpark RDD": Target(1 / 2.5, "ratio"),
            "Dask DataFrame P2P": Target(1 / 1.2, "ratio"),
            "dask.bag groupby": Target(1 / 10, "ratio"),
            "mrjob local": Target(1 / 5, "ratio"),
        },
    ),
    Measure(COLD, "s", EVEN),
    Measure(MEMORY, "MB", EVEN, targets={"PySpark RDD": Target(1 / 2, "ratio")}),
    Measure(SCALING, "times as fast", Target(1.8), better="higher"),
    Measure(WORD_COUNT, "s", EVEN),
    Measure(GROUP_TEXTS, "s", EVEN),
    *(
        Measure(name, "s", Target(1.6, "ratio"), targets={"Dask DataFrame P2P": Target(1 / 3, "ratio")})
        for name in (GROUP_INTEGERS, GROUP_SPARSE)
    ),
)


@dataclass(frozen=True)
class Job:
    """What one measure asks of a side."""

    name: str
    files: tuple[str, ...]
    parameters: dict[str, Any]
    answer: answers.Answer


class Process:
    """A side's process: started, ready, asked."""

    def __init__(self, engine: Engine, workers: int, scratch: Path) -> None:
        self._scratch = scratch
        self._number = 0
        module = f"benchmarks.mapreduce_jobs.{engine.module}"
        self._log = (scratch / "log").open("wb")
        self._process = subprocess.Popen(
            [str(engine.python), "-m", module, str(workers), *engine.arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._reply()

    @property
    def pid(self) -> int:
        """Of the process that was started; its workers are below it."""
        return self._process.pid

    def seconds(self, job: Job) -> float:
        """How long a job took.

        Raises:
            RuntimeError: The side ended, or its answer is wrong; says how.
        """
        self._number += 1
        out = self._scratch / f"out-{self._number}"
        request = {"job": job.name, "files": job.files, "out": str(out), **job.parameters}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        taken: float = self._reply()["seconds"]
        written = out if out.exists() else out.with_name(out.name + ".parquet")
        found = answers.read(written, job.answer.columns)
        if not found.agrees(job.answer):
            raise RuntimeError(f"{job.name}: wrong answer: {found} where {job.answer} is right")
        shutil.rmtree(written)
        return taken

    def close(self) -> None:
        """End it with everything below it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            tail = (self._scratch / "log").read_text(errors="replace").strip().splitlines()[-5:]
            raise RuntimeError("its process ended: " + " / ".join(tail))
        reply: dict[str, Any] = json.loads(line)
        return reply


def turn(engine: Engine) -> Outcomes:
    """All of a side's measures: each job twice in one process, of which the second counts, where that is a difference.

    Raises:
        RuntimeError: It failed or gave a wrong answer.
    """
    found: Outcomes = {}
    with _started(engine, WORKERS) as process:
        for measure in engine.jobs:
            if measure == TF_IDF:
                # Asking for memory takes time, of the side too: the run that counts is not watched.
                with PeakMemory(process.pid) as memory:
                    first = process.seconds(job(TF_IDF))
                taken = process.seconds(job(TF_IDF)) if engine.again else first
                found[COLD], found[TF_IDF] = Outcome(first), Outcome(taken)
                found[MEMORY] = Outcome(memory.peak / 1e6)
            elif measure in (GROUP_INTEGERS, GROUP_SPARSE):
                process.seconds(job(measure))
                found[measure] = Outcome(process.seconds(job(measure)))
            elif measure != SCALING:
                found[measure] = Outcome(process.seconds(job(measure)))
    if SCALING in engine.jobs:
        with _started(engine, 1) as process:
            process.seconds(job(TF_IDF))
            alone, both = process.seconds(job(TF_IDF)), found[TF_IDF].value
        assert both is not None
        found[SCALING] = Outcome(alone / both)
    return found


@contextmanager
def _started(engine: Engine, workers: int) -> Iterator[Process]:
    scratch = Path(tempfile.mkdtemp(prefix="paibook-benchmarks-"))
    try:
        process = Process(engine, workers, scratch)
        try:
            yield process
        finally:
            process.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@functools.cache
def job(measure: str) -> Job:
    """The job of a measure, with its right answer, which is computed here the plain way."""
    if measure == TF_IDF:
        files = corpus.corpus_files()
        documents, answer = answers.weights(files)
        return Job("tf_idf", _names(files), {"documents": documents}, answer)
    if measure == WORD_COUNT:
        files = corpus.corpus_files()
        return Job("word_count", _names(files), {}, answers.word_counts(files))
    if measure == GROUP_TEXTS:
        files = corpus.text_files()
        return Job("group_texts", _names(files), {}, answers.text_sums(files))
    files = corpus.integer_files() if measure == GROUP_INTEGERS else corpus.sparse_files()
    return Job("group_integers", _names(files), {}, answers.integer_sums(files))


def _names(files: list[Path]) -> tuple[str, ...]:
    return tuple(map(str, files))


if __name__ == "__main__":
    sys.exit("run it with: python -m benchmarks mapreduce")
